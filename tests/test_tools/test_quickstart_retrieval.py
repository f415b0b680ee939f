"""The command for text-video retrieval, shrunk: three runs, a table, a sheet."""

import json
import re
import sys

import pytest
import torch

from mmtransmamba import apis


@pytest.fixture
def quickstart(repo_dir, monkeypatch):
    monkeypatch.syspath_prepend(str(repo_dir / 'tools'))
    import quickstart_retrieval

    whole = apis.run_experiment

    def shrunk(config, work_dir, options=None):
        small = {
            'train_cfg.max_epochs': 2,
            'train_cfg.val_interval': 1,
            'param_scheduler': [],
            'train_dataloader.batch_size': 8,
            'train_dataloader.dataset.num_videos': 8,
            'val_dataloader.dataset.num_videos': 12,
        }
        return whole(config, work_dir, (options or {}) | small)

    monkeypatch.setattr(apis, 'run_experiment', shrunk)
    return quickstart_retrieval


def test_ends_with_table_and_sheet(quickstart, tmp_path, monkeypatch, capsys):
    arguments = ['--work-dir', str(tmp_path), '--seeds', '0', '1']
    monkeypatch.setattr(sys, 'argv', ['quickstart_retrieval.py', *arguments])
    quickstart.main()
    printed = capsys.readouterr().out
    for label in ('text to video', 'video to text', 'CLIP4Clip', 'transfer', '±'):
        assert label in printed
    records = json.loads((tmp_path / 'results.json').read_text())
    assert len(records) == 2 * (1 + 2 + 2)
    by_run = {(r['run'], r['direction']): r for r in records}
    assert by_run['scratch_seed0', 't2v'] != by_run['scratch_seed1', 't2v']
    sizes = {
        name: by_run[f'{name}_seed0', 't2v']['parameters']
        for name in ('scratch', 'transfer')
    }
    assert sizes['scratch'] == sizes['transfer']
    assert all(1 <= r['MdR'] <= 24 and r['R@1'] <= r['R@10'] for r in records)
    assert (tmp_path / 'top5.png').stat().st_size > 10_000
    assert re.search('top5.png', printed)

    # The text towers of the students are the teacher's.
    checkpoints = {
        name: torch.load(tmp_path / name / 'epoch_2.pth', weights_only=False)
        for name in ('teacher', 'scratch_seed0', 'transfer_seed1')
    }
    states = [checkpoint['state_dict'] for checkpoint in checkpoints.values()]
    key = 'text_encoder.text_projection.weight'
    assert all(torch.equal(state[key], states[0][key]) for state in states)

    quickstart.main()  # everything is there: nothing is trained, the table is the same
    assert records == json.loads((tmp_path / 'results.json').read_text())
