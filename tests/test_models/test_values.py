"""Weights that no model can compute with, wherever they come from."""

import pytest
import torch
import value_ranks
from processes import spawn_ranks
from torch import nn
from torch_release import cpu_shards

from mmtransmamba.models.checkpoint import CheckpointError, load_pretrained
from mmtransmamba.models.fit import check_depth, check_fit, check_weights
from mmtransmamba.models.values import fault_of

BAD = [(torch.nan, 'NaN'), (torch.inf, 'infinity'), (-torch.inf, 'infinity')]


@cpu_shards
def test_a_bad_value_is_found_in_the_part_of_any_process(tmp_path):
    values = [1.0, *(value for value, _ in BAD)]
    spawn_ranks(value_ranks.run, str(tmp_path), values)
    expected = [None] * value_ranks.ROWS
    expected += [kind for _, kind in BAD for _ in range(value_ranks.ROWS)]
    for rank in range(2):
        assert torch.load(tmp_path / f'{rank}.pth') == expected


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 2)
        self.second = nn.Linear(2, 2)
        self.register_buffer('mask', torch.full((2, 2), -torch.inf).triu(1))
        self.register_buffer('steps', torch.zeros((), dtype=torch.int64))


def state(**changes):
    names = {key.replace('.', '_'): key for key in Model().state_dict()}
    new = {key: value.clone() for key, value in Model().state_dict().items()}
    return new | {names[name]: value for name, value in changes.items()}


def with_value(shape, value):
    tensor = torch.zeros(shape)
    tensor.view(-1)[-1] = value
    return tensor


loaders = pytest.mark.parametrize(
    'load',
    [
        lambda given: load_pretrained(Model(), given),
        lambda given: check_fit(Model(), given, ''),
        lambda given: check_weights(given, 'file.pth'),
    ],
    ids=['load_pretrained', 'check_fit', 'check_weights'],
)


@loaders
@pytest.mark.parametrize('value, what', BAD)
def test_weights_without_a_value_are_named(load, value, what):
    with pytest.raises(CheckpointError, match=f'second.weight has {what}'):
        load(state(second_weight=with_value((2, 2), value)))


@loaders
@pytest.mark.parametrize('dtype', ['int8', 'uint8', 'int32', 'int64', 'bool'])
def test_integers_are_no_weights(load, dtype):
    given = state(first_bias=torch.ones(2).to(getattr(torch, dtype)))
    with pytest.raises(CheckpointError, match=rf'first.bias.*{dtype}'):
        load(given)


@loaders
@pytest.mark.parametrize('dtype', ['float16', 'bfloat16', 'float64'])
def test_masks_counters_and_other_precisions_are_fine(load, dtype):
    dtype = getattr(torch, dtype)
    load(state(first_bias=torch.ones(2).to(dtype)))


@pytest.mark.parametrize(
    'dtype', ['float16', 'bfloat16', 'float32', 'float64', 'float8_e4m3fn']
)
def test_faults_are_found_in_every_precision(dtype):
    dtype = getattr(torch, dtype)
    assert fault_of(torch.ones(5).to(dtype)) is None
    assert fault_of(with_value(5, torch.nan).to(dtype)) == 'NaN'
    assert fault_of(torch.zeros(0).to(dtype)) is None


def test_nothing_is_loaded_of_a_state_that_is_refused():
    model = Model()
    before = model.first.weight.clone()
    with pytest.raises(CheckpointError):
        load_pretrained(model, state(second_weight=with_value((2, 2), torch.nan)))
    assert torch.equal(model.first.weight, before)


def test_a_depth_without_weights_is_refused_at_once():
    from transformers import LlamaConfig

    names = [f'model.layers.{i}.mlp.up_proj.weight' for i in range(4)]
    check_depth(LlamaConfig(num_hidden_layers=4), names, 'here')
    check_depth(LlamaConfig(num_hidden_layers=2), names, 'here')
    with pytest.raises(CheckpointError, match='here: num_hidden_layers=100000 .* of 4'):
        check_depth(LlamaConfig(num_hidden_layers=100_000), names, 'here')
