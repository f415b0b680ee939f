"""The main command, shrunk: three runs, a table, curves."""

import json
import re
import sys

import pytest

from mmtransmamba import apis


@pytest.fixture
def quickstart(repo_dir, monkeypatch):
    monkeypatch.syspath_prepend(str(repo_dir / 'tools'))
    import quickstart

    whole = apis.run_experiment

    def shrunk(config, work_dir, options):
        small = {
            'train_cfg.max_epochs': 2,
            'train_cfg.val_interval': 1,
            'param_scheduler': [],
            'default_hooks.checkpoint.interval': 1,
        }
        return whole(config, work_dir, options | small)

    monkeypatch.setattr(apis, 'run_experiment', shrunk)
    return quickstart


def test_ends_with_table_and_curves(quickstart, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['quickstart.py', '--work-dir', str(tmp_path)])
    quickstart.main()
    printed = capsys.readouterr().out
    for label in ('DeiT', 'scratch', 'transfer'):
        assert label in printed
    rows = json.loads((tmp_path / 'results_seed0.json').read_text())
    assert [row['model'] for row in rows] == list(quickstart.RUNS.values())
    assert rows[1]['parameters'] == rows[2]['parameters'] != rows[0]['parameters']
    for name in ('curves_seed0.png', 'layer_weights_seed0.png'):
        assert (tmp_path / name).stat().st_size > 10_000
        assert re.search(name, printed)

    quickstart.main()  # everything is there: nothing is trained, the table is the same
    assert rows == json.loads((tmp_path / 'results_seed0.json').read_text())
