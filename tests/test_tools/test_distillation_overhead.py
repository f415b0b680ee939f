"""``tools/benchmarks/distillation_overhead.py`` on a small distiller."""

import re
import sys

import distillation_overhead
import pytest

TRANSFER = 'configs/image_classification/transmamba'


def test_it_times_teacher_student_and_the_whole_step(repo_dir, monkeypatch, capsys):
    config = repo_dir / TRANSFER / 'trans-plain-mamba-mini_1xb64_cifar10-32px.py'
    options = ['--image-size', '32', '--batch-size', '2', '--repeat', '1']
    options += ['--device', 'cpu', '--config', str(config)]
    monkeypatch.setattr(sys, 'argv', ['distillation_overhead.py', *options])
    assert not distillation_overhead.main()
    output = capsys.readouterr().out
    teacher, student, step = (
        float(re.search(rf'^{name} +([\d.]+) ms$', output, re.MULTILINE)[1])
        for name in ('teacher_forward', 'student_step', 'distillation_step')
    )
    assert 0 < teacher and 0 < student < step
    share = float(re.search(r'overhead +(-?[\d.]+) %', output)[1])
    assert share == pytest.approx(100 * (step - teacher - student) / step, abs=0.3)
    assert 'median of 1 (' in output and 'batch 2, 32 px, cpu' in output
