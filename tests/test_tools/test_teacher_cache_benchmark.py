"""``tools/benchmarks/teacher_cache.py``: both kinds of teachers teach the same."""

import sys
from pathlib import Path

import _teacher_cache
import pytest
import teacher_cache

CIFAR = (
    'configs/image_classification/transmamba/'
    'trans-plain-mamba-mini_1xb64_cifar10-32px.py'
)


@pytest.fixture
def arguments(monkeypatch):
    monkeypatch.setattr(
        _teacher_cache,
        'LLAMA',
        dict(
            vocab_size=32,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
        ),
    )
    config = Path(__file__).parents[2] / CIFAR

    def parse(*options):
        command = ['teacher_cache.py', '--repeat', '1', '--batch-size', '2']
        command += ['--tokens', '8', '--k', '32', '--image-size', '32']
        monkeypatch.setattr(sys, 'argv', [*command, '--config', str(config), *options])
        return teacher_cache.parse_args()

    return parse


def test_what_is_recorded_is_what_the_teacher_says(arguments, tmp_path):
    for steps in (
        _teacher_cache.language(arguments(), str(tmp_path)),
        _teacher_cache.images(arguments()),
    ):
        online, recorded = (step().item() for step in steps)
        assert online > 0 and recorded == pytest.approx(online, rel=1e-3)


def test_it_prints_both_medians_and_the_saving(arguments, capsys, monkeypatch):
    clock = iter([0.0, 0.0, 0.0, 4.0, 0.0, 1.0])
    monkeypatch.setattr(_teacher_cache.time, 'process_time', lambda: next(clock))
    arguments('--cases', 'language')
    teacher_cache.main()
    first, last = capsys.readouterr().out.splitlines()[-2:]
    assert first == ('language | teacher runs 4.00 s | recorded 1.00 s | 75 % less')
    assert last.startswith('processor time of a step, medians of 1, batch 2, ')
