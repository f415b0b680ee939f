"""Two processes that stop and go on."""

import os

import torch
from tiny_training import make_config, train


def assert_same(one, other):
    """The weights of two runners are bitwise the same."""
    one, other = (runner.model.state_dict() for runner in (one, other))
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def run_rank(rank, folder, port):
    os.environ.update(
        RANK=str(rank), WORLD_SIZE='2', LOCAL_RANK=str(rank), MASTER_PORT=str(port)
    )
    os.environ.update(MASTER_ADDR='127.0.0.1')
    torch.distributed.init_process_group('gloo')
    torch.manual_seed(rank)
    options = dict(workers=2, persistent=True, length=3, diff_rank_seed=True)
    wrapper = dict(type='MMDistributedDataParallel', device_ids=None)
    distributed = dict(launcher='pytorch', cfg=dict(model_wrapper_cfg=wrapper))
    whole = train(make_config(folder / 'whole', **options) | distributed)
    cut = make_config(folder / 'cut', **options) | distributed
    assert train(cut, stop_at=5) is None
    cut = make_config(folder / 'cut', **options) | distributed
    resumed = train(cut, resume=folder / 'cut' / 'epoch_1.pth')
    assert_same(resumed, whole)
