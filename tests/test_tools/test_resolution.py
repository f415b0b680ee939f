"""The benchmark of latency and memory against the resolution, with tiny models."""

import csv
import sys

import _resolution as module
import pytest
import resolution
import torch
from torch import nn
from torch._inductor import config as inductor

needs_fork = pytest.mark.skipif(sys.platform == 'win32', reason='no fork')


@pytest.fixture
def parse(monkeypatch, tmp_path):
    def parse(*args):
        command = ['resolution.py', '--out', str(tmp_path / 'out'), *args]
        monkeypatch.setattr(sys, 'argv', command)
        return resolution.parse_args()

    return parse


@pytest.mark.parametrize('name', resolution.MODELS)
def test_every_model_takes_images_of_the_size(name):
    with torch.inference_mode():
        model = module.build(name, 64)
        out = model(torch.randn(1, 3, 64, 64))
    assert torch.isfinite(out if isinstance(out, torch.Tensor) else out[-1]).all()
    assert not model.training


@needs_fork
def test_writes_table_csv_and_picture_and_keeps_the_text(parse, monkeypatch, capsys):
    monkeypatch.setattr(module, 'build', lambda name, size: nn.Conv2d(3, 2, 8, 8))
    args = parse('--models', 'Vim-T', 'DeiT-T', '--sizes', '96', '64', '--repeats', '2')
    folder = args.out
    folder.mkdir(exist_ok=True)
    page = folder / 'resolution.md'
    begin, end = module.HEAD.split('\n')[4:6]
    page.write_text(f'# Own title\n\n{begin}\nold\n{end}\nOwn end.\n')
    module.run(args)
    text = page.read_text()
    assert text.startswith('# Own title') and text.endswith('Own end.\n')
    assert 'old' not in text and '| side | Vim-T | DeiT-T |' in text
    rows = list(csv.DictReader((folder / 'resolution.csv').open()))
    assert [(row['model'], row['size']) for row in rows] == [
        *(('Vim-T', size) for size in ('64', '96')),
        *(('DeiT-T', size) for size in ('64', '96')),
    ]
    assert all(float(row['processor_ms']) > 0 for row in rows)
    assert all(row['repeats'] == '2' for row in rows)
    assert (folder / 'resolution.png').stat().st_size > 1000
    assert 'written to' in capsys.readouterr().out


@pytest.mark.skipif(sys.platform != 'linux', reason='no peak to reset')
def test_memory_that_was_freed_before_counts_again(parse, monkeypatch):
    class Grow(nn.Module):
        def forward(self, images):
            return torch.zeros(images.shape[-1] ** 2, 100)

    monkeypatch.setattr(module, 'build', lambda name, size: Grow())
    freed = [torch.zeros(1000) for _ in range(20000)]  # 80 MB of small blocks
    del freed
    args = parse('--repeats', '1')
    # 128 * 128 * 100 numbers of four bytes
    assert module.apart('Vim-T', 128, False, args)['peak_mib'] == pytest.approx(
        6.25, abs=1
    )


@needs_fork
def test_a_process_that_dies_is_named(parse, monkeypatch):
    def build(name, size):
        raise SystemExit(3)

    monkeypatch.setattr(module, 'build', build)
    with pytest.raises(SystemExit, match='Vim-T at 64 pixels ended with exit status 3'):
        module.apart('Vim-T', 64, False, parse())


def test_sizes_that_may_need_too_much_memory_are_skipped(parse, monkeypatch, capsys):
    def apart(name, size, compiled, args):
        row = dict(model=name, size=size, compiled=compiled)
        return row | dict(processor_ms=1.0, peak_mib=100.0)

    monkeypatch.setattr(module, 'apart', apart)
    # 16 times 100 MiB are less than 2 GiB, 81 times are more.
    args = parse('--sizes', '64', '128', '192', '--memory-limit', '2')
    args.models = ['DeiT-T']
    args.sizes = [64, 192]
    assert [row['size'] for row in module.measure_all(args)] == [64]
    assert 'DeiT-T, 192 pixels: skipped' in capsys.readouterr().err
    args.sizes = [64, 128]
    assert [row['size'] for row in module.measure_all(args)] == [64, 128]
    assert not module.may_exceed(None, 64, 1)
    assert not module.may_exceed(dict(size=64, peak_mib=None), 1248, 1)


def test_compiled_models_have_a_table_of_their_own(parse, monkeypatch, capsys):
    def apart(name, size, compiled, args):
        row = dict(model=name, size=size, compiled=compiled)
        return row | dict(processor_ms=7.0 if compiled else 9.0, peak_mib=1.0)

    monkeypatch.setattr(module, 'apart', apart)
    args = parse('--sizes', '64', '96', '--compiled-sizes', '96', '--models', 'Vim-T')
    rows = module.measure_all(args)
    assert [(row['size'], row['compiled']) for row in rows] == [
        *((64, False), (96, False)),
        (96, True),
    ]
    assert 'Vim-T, 96 pixels, compiled: 7 ms' in capsys.readouterr().err
    text = module.markdown(rows, 'On a machine.')
    assert '| 96 | 7 |' in text.split('**Compiled')[1]
    assert '| 96 | 9 |' in text.split('**Compiled')[0]


@pytest.mark.parametrize('name', ['Vim-T', 'DeiT-T'])
def test_a_model_is_compiled_before_it_is_measured(parse, monkeypatch, name):
    compiled, frozen = [], []

    def compile_with(forward):
        compiled.append(forward)
        return lambda images: frozen.append(inductor.freezing) or forward(images)

    monkeypatch.setattr(torch, 'compile', compile_with)
    row = module.measure(name, 64, True, parse('--repeats', '1'))
    assert len(compiled) == 1 and row['compiled'] and row['processor_ms'] > 0
    assert frozen and all(frozen) and not inductor.freezing


def test_a_missing_figure_is_a_dash():
    rows = [
        dict(model='a', size=64, peak_mib=1234.4),
        dict(model='a', size=96, peak_mib=None),
        dict(model='b', size=64, peak_mib=2.0),
    ]
    assert module.table(rows, 'peak_mib').splitlines() == [
        '| side | a | b |',
        '|---|---|---|',
        '| 64 | 1,234 | 2 |',
        '| 96 | – | – |',
    ]
