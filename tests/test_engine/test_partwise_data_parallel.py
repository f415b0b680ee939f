"""Models in two processes that exchange their gradients once."""

import language_ranks
import partwise_ranks
import torch
from mmengine.model import is_model_wrapper
from processes import spawn_ranks
from torch import nn

from mmtransmamba.engine.partwise_data_parallel import PartwiseDataParallel
from mmtransmamba.registry import MODEL_WRAPPERS


def test_processes_learn_what_one_with_all_batches_does(tmp_path):
    spawn_ranks(language_ranks.run, 2, str(tmp_path))
    first, second = (torch.load(tmp_path / f'{rank}.pth') for rank in range(2))
    expected = language_ranks.train(None, 2)
    start = language_ranks.make_hybrid(language_ranks.make_teacher()).state_dict()
    assert any(not torch.equal(expected[key], start[key]) for key in start)
    for key, value in expected.items():
        assert torch.equal(first[key], second[key]), key
        torch.testing.assert_close(first[key], value, msg=key)


def test_models_of_a_single_backward_pass_are_averaged_too(tmp_path):
    spawn_ranks(partwise_ranks.run, 2, str(tmp_path))
    first, second = (torch.load(tmp_path / f'{rank}.pth') for rank in range(2))
    for kind, state in first.items():
        start = partwise_ranks.model_of(kind).state_dict()
        expected = partwise_ranks.train(kind, None, 2)
        assert any(not torch.equal(expected[key], start[key]) for key in start)
        for key, value in expected.items():
            assert torch.equal(state[key], second[kind][key]), (kind, key)
            torch.testing.assert_close(state[key], value, msg=f'{kind} {key}')


def test_known_as_a_wrapper():
    wrapper = MODEL_WRAPPERS.build(
        dict(type='mmtransmamba.PartwiseDataParallel', module=nn.Linear(1, 1))
    )
    assert isinstance(wrapper, PartwiseDataParallel)
    assert is_model_wrapper(wrapper)
    assert torch.equal(wrapper(torch.ones(1, 1)), wrapper.module(torch.ones(1, 1)))
