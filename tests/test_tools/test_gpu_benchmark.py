"""``tools/benchmarks/gpu.py`` without a GPU: every part runs, and a run continues."""

import csv
import json
import platform
import sys
from pathlib import Path

import _gpu
import _gpu_steps
import _gpu_training
import gpu
import pytest
import torch

from mmtransmamba.models import Vim

VIM = dict(embed_dims=16, depth=1, d_state=4, d_conv=4, expand=2)
CIFAR = 'trans-plain-mamba-mini_1xb64_cifar10-32px.py'
PAGE = Path(__file__).parents[2] / 'docs' / 'results' / 'gpu.md'


@pytest.fixture
def start(monkeypatch, tmp_path, capsys):
    """Run with options; the rows that the folder has, and what was printed."""
    monkeypatch.setattr(
        _gpu_training, 'BACKBONES', {'Vim': lambda size: Vim(VIM, img_size=size)}
    )
    monkeypatch.setattr(
        _gpu_training, 'DISTILLERS', {'Vim': _gpu_training.ROOT / CIFAR}
    )
    monkeypatch.setattr(_gpu_training, 'SIZE', 32)
    monkeypatch.setattr(_gpu, 'SHAPES', {(64, 384, 196, 16): 0.03})

    def start(*options):
        monkeypatch.setattr(sys, 'argv', ['gpu.py', str(tmp_path), *options])
        gpu.main()
        return _gpu.collected(tmp_path), capsys.readouterr().out

    return start


def test_every_part_runs_and_is_written(start, tmp_path, monkeypatch):
    decoded = [dict(model='pure', step='eager', context=16, ms_per_token=2.5, peak=3e9)]

    def decode(command, **_):
        assert command[1].endswith('decode.py') and '--json' in command
        Path(command[command.index('--json') + 1]).write_text(json.dumps(decoded))

    real = _gpu.subprocess.run
    monkeypatch.setattr(
        _gpu.subprocess,
        'run',
        lambda command, **rest: (decode if '--json' in command else real)(
            command, **rest
        ),
    )
    page = tmp_path / 'page.md'
    page.write_text(PAGE.read_text(encoding='utf-8'), encoding='utf-8')
    rows, printed = start('--dry-run', '--markdown', str(page))
    assert {row['part'] for row in rows} == set(gpu.PARTS)
    assert not [row for row in rows if row['measure'] == 'failed']
    values = {(row['case'], row['measure']): row['value'] for row in rows}
    assert values['llama-3.2-1b', 'pure eager at 16, ms a token'] == 2.5
    exact = '(2, 40, 197, 16) float32'
    assert values[exact, 'two runs have equal bits'] == 1
    assert 0 < values[exact, 'error of gradient of A'] < 1e-5
    assert values['K = 4 float32', 'forward, ms'] > 0
    assert values['Vim distilled', 'images a second without AdamW'] > 0
    assert ('Vim distilled', 'overhead of distillation, %') in values
    for case in (
        'bi_wkv6 (64, 196, 192)',
        'causal_conv1d (64, 196, 384)',
        'ssd_scan (8, 2048, 3072)',
        'gated_norm (8, 2048, 2048)',
    ):
        assert values[f'{case} float32', 'error of y'] < 1e-5
        assert values[f'{case} bfloat16', 'forward and backward, ms'] > 0
    for case in (
        'ssd_scan (8, 2048, 3072) bfloat16 native',
        'ssd_scan (8, 2048, 3072) bfloat16 chunked',
        'gated_delta_rule (64, 196, 192) bfloat16 chunked',
        'kda (8, 4096, 1024) bfloat16 chunked',
    ):
        assert values[case, 'error of y'] < 2e-2
        assert values[case, 'forward and backward, ms'] > 0
    for name, *shape in _gpu_steps.STEPS:
        case = f'{name} {tuple(shape)}'
        for part in ('y', 'state'):
            assert values[f'{case} float32', f'error of {part}'] < 1e-5
            assert values[f'{case} bfloat16', f'error of {part}'] < 2e-2
        assert values[f'{case} bfloat16', 'step, ms'] > 0
    with (tmp_path / 'gpu.csv').open(newline='', encoding='utf-8') as file:
        assert len(list(csv.DictReader(file))) == len(rows)
    text = page.read_text(encoding='utf-8')
    assert text.count('\n| scan |') == 12 and '## Predictions' in text
    assert printed.count('\n') >= len(rows)


def test_it_continues_and_tries_again_what_failed(start, monkeypatch):
    ran = []

    def training(name, device):
        ran.append(name)
        yield 'images a second', 1.0
        if len(ran) == 1:
            raise torch.OutOfMemoryError('too large\nfor this card')

    monkeypatch.setattr(_gpu_training, 'alone', training)
    monkeypatch.setattr(_gpu_training, 'DISTILLERS', {})
    options = ('--dry-run', '--parts', 'training')
    rows, _ = start(*options)
    assert [row['measure'] for row in rows] == ['images a second', 'failed']
    assert rows[1]['value'] == 'OutOfMemoryError: too large'
    rows, _ = start(*options)
    assert [row['measure'] for row in rows] == ['images a second']
    start(*options)
    assert ran == ['Vim', 'Vim']


def test_packages_that_are_absent_are_named(start, monkeypatch):
    monkeypatch.setattr(_gpu, 'MIXING', {('ssd_scan', 8, 20, 128): 1.0})
    monkeypatch.setattr(_gpu, 'STAND_INS', {'mamba_ssm': 'mamba_ssm', 'fla': 'fla'})
    absent = {'mamba_ssm': 'no mamba_ssm here', 'fla': 'no fla here\nat all'}
    monkeypatch.setattr(_gpu.backends, 'available', lambda op: absent)
    rows, _ = start('--dry-run', '--parts', 'mixing')
    found = {row['case']: row['value'] for row in rows if row['measure'] == 'not run'}
    shape = 'ssd_scan (8, 20, 128) bfloat16'
    assert found == {
        f'{shape} mamba_ssm': 'no mamba_ssm here',
        f'{shape} fla': 'no fla here',
    }
    # Once they are there, they and nothing else are measured.
    asked = []
    monkeypatch.setattr(_gpu, '_rows', lambda item: asked.append(item.case) or [])
    start('--dry-run', '--parts', 'mixing')
    assert asked == list(found)


@pytest.mark.parametrize('other', ['commit', 'card', 'dry run'])
def test_results_of_something_else_are_not_continued(start, monkeypatch, other):
    monkeypatch.setattr(_gpu_training, 'alone', lambda *_: iter([('images', 1.0)]))
    monkeypatch.setattr(_gpu_training, 'DISTILLERS', {})
    options = ['--dry-run', '--parts', 'training']
    before, _ = start(*options)
    if other == 'dry run':
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
        monkeypatch.setattr(torch.cuda, 'get_device_name', platform.machine)
        del options[0]
    else:
        here = _gpu.where()
        place = 0 if other == 'card' else -1
        here[place] = f'another {other}'
        monkeypatch.setattr(_gpu, 'where', lambda: here)
    with pytest.raises(SystemExit, match='has results with .*another folder'):
        start(*options)


def test_nothing_is_started_when_the_time_is_up(start, monkeypatch):
    clock = iter([0.0, *[1e6] * 99])
    monkeypatch.setattr(_gpu.time, 'monotonic', lambda: next(clock))
    rows, printed = start('--dry-run', '--parts', 'training')
    assert not rows and 'not run: training Vim, training Vim distilled. Run' in printed


def test_without_a_gpu_only_a_dry_run_is_possible(start, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(SystemExit, match='--dry-run'):
        start()


def test_the_page_claims_nothing():
    begin, _, rest = PAGE.read_text(encoding='utf-8').partition('<!-- begin figures')
    assert '**Not run.**' in begin
    figures = rest.partition('-->')[2].partition('<!--')[0]
    assert figures.strip() == 'Not run.'
