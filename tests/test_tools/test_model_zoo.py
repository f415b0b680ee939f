"""The model zoo's page matches the code; the script that writes it."""

import json
import sys
from pathlib import Path

import pytest

from mmtransmamba.models import PlainMamba, backbones

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'tools' / 'analysis_tools'))
import model_zoo  # noqa: E402

sys.path.pop(0)

PAGE = (ROOT / 'docs' / 'model_zoo.md').read_text(encoding='utf-8')
GOLDEN = sorted(p.stem for p in (ROOT / 'tests' / 'data' / 'golden').glob('*.json'))
ARCHS = [(family.__name__, arch) for family, arch in model_zoo.architectures()]


@pytest.fixture(scope='module')
def measured():
    return model_zoo.read_record(ROOT / 'docs' / 'model_zoo.json').get(
        'images_per_second', {}
    )


@pytest.mark.parametrize('name, arch', ARCHS)
def test_the_page_has_the_row_that_the_code_computes(name, arch, measured):
    family = getattr(backbones, name)
    row = model_zoo.row(family, arch, measured.get(f'{name} {arch}'))
    assert row in PAGE.splitlines()


def test_the_page_has_no_other_rows():
    rows = [line.split(' | ') for line in PAGE.splitlines() if line.startswith('| ')]
    shown = [(r[0].strip('| '), r[1].strip('`')) for r in rows if r[1].startswith('`')]
    assert shown == ARCHS
    assert len(set(ARCHS)) == len(ARCHS) > 20


def test_every_golden_file_and_family_is_named():
    named = {file for files in model_zoo.GOLDEN.values() for file in files}
    assert named <= set(GOLDEN)
    for stem in GOLDEN:  # a resolution may follow
        assert stem in named or stem.rsplit('_', 1)[0] in named, stem
    assert set(model_zoo.GOLDEN) <= set(ARCHS)
    assert {name for name, _ in ARCHS} <= set(model_zoo.RELEASES)


class TestScript:
    @pytest.fixture
    def run(self, tmp_path, monkeypatch):
        """Run it on two small images and architectures; returns record and page."""
        archs = {'L1': {**PlainMamba.ARCHS['L1'], 'embed_dims': 16, 'depth': 1}}
        archs['T'] = {**archs['L1'], 'depth': 2}
        monkeypatch.setattr(PlainMamba, 'ARCHS', archs)
        monkeypatch.setattr(backbones, '__all__', ['PlainMamba'])
        monkeypatch.setattr(model_zoo, 'SIZE', 32)
        json_path, page = tmp_path / 'zoo.json', tmp_path / 'zoo.md'

        def run(*options):
            files = ('--json', str(json_path), '--out', str(page))
            args = [*files, '--batch-size', '2', '--repeat', '2', *options]
            monkeypatch.setattr(sys, 'argv', ['model_zoo.py', *args])
            model_zoo.main()
            return model_zoo.read_record(json_path), page.read_text(encoding='utf-8')

        run.json_path = json_path
        return run

    def test_nothing_is_measured_unasked(self, run):
        record, page = run()
        assert record == {} and 'not measured yet' in page

    def test_an_interrupted_measurement_goes_on(self, run, monkeypatch, capsys):
        whole = model_zoo.throughput

        def interrupted(family, arch, args):
            if arch == 'T':
                raise KeyboardInterrupt
            return whole(family, arch, args)

        monkeypatch.setattr(model_zoo, 'throughput', interrupted)
        with pytest.raises(SystemExit, match='130'):
            run('--measure')
        before = json.loads(run.json_path.read_text())['images_per_second']
        assert list(before) == ['PlainMamba L1']

        monkeypatch.setattr(model_zoo, 'throughput', whole)
        capsys.readouterr()
        record, page = run('--measure')
        assert capsys.readouterr().out.startswith('PlainMamba T:')
        after = record['images_per_second']
        assert after['PlainMamba L1'] == before['PlainMamba L1']
        assert after['PlainMamba T'] > 0
        assert f'| {after["PlainMamba T"]:.1f} |' in page
        assert 'batches of 2' in page

    def test_measurements_of_different_settings_do_not_mix(self, run):
        run('--measure')
        with pytest.raises(SystemExit, match=r'"?batch.*--again to measure all anew'):
            run('--measure', '--batch-size', '1')
        record, _ = run('--measure', '--batch-size', '1', '--again')
        assert record['setting']['batch'] == 1
