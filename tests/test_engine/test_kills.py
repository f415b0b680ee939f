"""Kills at random moments, also while a checkpoint is written."""

import multiprocessing
import os
import random
import signal

import torch
from killed_runs import OPTIONS, run
from processes import PRELOAD
from tiny_training import make_config, train

KILLS = int(os.environ.get('MMTRANSMAMBA_KILLS', 4))


def test_killed_runs_end_with_the_same_weights(tmp_path):
    whole = tmp_path / 'whole'
    train(make_config(whole, **OPTIONS))
    expected = torch.load(whole / 'epoch_6.pth', weights_only=False)
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(PRELOAD)
    seed = int(os.environ.get('MMTRANSMAMBA_KILLS_SEED', 0))
    rng = random.Random(seed)
    folder, killed, runs = tmp_path / 'killed-0', 0, 0
    while killed < KILLS or not (folder / 'epoch_6.pth').exists():
        if (folder / 'epoch_6.pth').exists():
            runs += 1
            folder = tmp_path / f'killed-{runs}'
        kill_at = rng.randrange(1, 40) if killed < KILLS else None
        process = context.Process(target=run, args=(folder, kill_at))
        process.start()
        process.join(120)
        assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
        killed += process.exitcode != 0
        if (folder / 'epoch_6.pth').exists() and process.exitcode == 0:
            last = torch.load(folder / 'epoch_6.pth', weights_only=False)
            for part in ('state_dict', 'random_state'):
                assert_same(last[part], expected[part])


def assert_same(one, other):
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    else:
        assert one == other
