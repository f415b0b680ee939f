"""A resumed run is the same, to the bit, as one that was never interrupted."""

import random
import shutil
import socket

import numpy as np
import pytest
import torch
from processes import spawn_ranks
from resume_ranks import assert_same, run_rank
from tiny_training import make_config, train

from mmtransmamba.engine.random_state import cpu_state, set_cpu_state

RUNS = {
    'epochs': dict(by_epoch=True),
    'epochs, saved within': dict(by_epoch=False, loop_by_epoch=True),
    'iterations, finite': dict(by_epoch=False),
    'iterations, infinite': dict(by_epoch=False, sampler='InfiniteSampler'),
}


@pytest.mark.parametrize(
    ('run', 'workers', 'persistent', 'val'),
    [
        ('epochs', 0, False, True),
        ('epochs', 2, True, False),
        ('epochs, saved within', 0, False, False),
        ('epochs, saved within', 2, True, True),
        ('iterations, finite', 2, False, False),
        ('iterations, finite', 2, True, True),
        ('iterations, infinite', 0, False, True),
        ('iterations, infinite', 2, True, False),
    ],
)
def test_resumed_run_is_bitwise_the_same(tmp_path, run, workers, persistent, val):
    options = dict(RUNS[run], workers=workers, persistent=persistent, val=val)
    whole = train(make_config(tmp_path / 'whole', **options))
    # Twice: a resumed run is itself resumed.
    for i, stop in enumerate((8, 13)):
        cfg = make_config(tmp_path / 'cut', **options)
        assert train(cfg, stop_at=stop, resume='auto' if i else None) is None
    resumed = train(make_config(tmp_path / 'cut', **options), resume='auto')
    assert resumed.iter == 20
    assert_same(resumed, whole)


@pytest.mark.parametrize('workers', [0, 2])
def test_run_without_a_seed_keeps_its_own(tmp_path, workers):
    options = dict(seed=None, workers=workers)
    folder, copy = tmp_path / 'whole', tmp_path / 'cut'
    whole = train(make_config(folder, **options))
    copy.mkdir()
    shutil.copy(folder / 'epoch_2.pth', copy)
    resumed = train(make_config(copy, **options), resume='auto')
    assert_same(resumed, whole)


def test_generators_are_restored_exactly():
    np.random.normal(), random.gauss(0, 1)  # each keeps a second number
    before = cpu_state()
    drawn = [torch.rand(3).tolist(), np.random.normal(size=3).tolist()]
    drawn.append([random.gauss(0, 1) for _ in range(3)])
    set_cpu_state(before)
    again = [torch.rand(3).tolist(), np.random.normal(size=3).tolist()]
    again.append([random.gauss(0, 1) for _ in range(3)])
    assert again == drawn


def test_processes_go_on_with_their_own_numbers(tmp_path):
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    spawn_ranks(run_rank, tmp_path, port)
