"""Loss scaling in float16, in one process and under FSDP2."""

from __future__ import annotations

import pytest
import scaled_ranks
import torch
from processes import spawn_ranks
from scaled_ranks import RANKS, SCALE
from torch import nn
from torch_release import cpu_shards

from mmtransmamba.engine.optimizers import AutocastOptimWrapper, ScaledOptimWrapper


@pytest.fixture(scope='module')
def alone():
    return scaled_ranks.train(None)


@pytest.fixture(scope='module')
def together(tmp_path_factory):
    if cpu_shards.args[0]:
        pytest.skip(cpu_shards.kwargs['reason'])
    folder = tmp_path_factory.mktemp('scaled')
    spawn_ranks(scaled_ranks.run, str(folder), nprocs=RANKS)
    return [torch.load(folder / f'{rank}.pth') for rank in range(RANKS)]


def test_one_process_skips_a_step_that_overflows(alone):
    first, skipped, last, state = alone
    torch.testing.assert_close(skipped['weights'], first['weights'], rtol=0, atol=0)
    assert [step['scale'] for step in alone[:3]] == [SCALE, SCALE / 2, SCALE / 2]
    assert not torch.equal(last['weights']['gain'], first['weights']['gain'])
    assert state['scale'] == SCALE / 2


def test_an_overflow_in_one_part_skips_the_step_in_all(together):
    # The first row of the weight, which overflows, belongs to the first process.
    assert [report[1]['finite'] for report in together] == [[False], [True]]
    for report in together:
        first, skipped = report[0]['weights'], report[1]['weights']
        torch.testing.assert_close(skipped, first, rtol=0, atol=0)
        assert [step['scale'] for step in report[:3]] == [SCALE, SCALE / 2, SCALE / 2]


def test_other_steps_are_those_of_one_process(together, alone):
    for report in together:
        for step, expected in zip(report[:3], alone[:3], strict=True):
            torch.testing.assert_close(
                step['weights'], expected['weights'], rtol=1e-3, atol=1e-5
            )
        assert report[3] == alone[3]


def wrapped(**options):
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
    return ScaledOptimWrapper(optimizer=optimizer, **options)


def test_a_fixed_scale_stays():
    wrapper = wrapped(loss_scale=64.0)
    for parameter in wrapper.optimizer.param_groups[0]['params']:
        parameter.grad = torch.full_like(parameter, torch.inf)
    wrapper.loss_scaler.scale(torch.ones(1))
    wrapper.step()
    assert wrapper.loss_scaler.get_scale() == 64
    other = wrapped()
    other.load_state_dict(wrapper.state_dict())
    assert other.loss_scaler.get_scale() == 64


def test_gradients_in_float16_are_refused():
    parameter = nn.Parameter(torch.ones(2, dtype=torch.float16))
    parameter.grad = torch.ones_like(parameter)
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    wrapper = ScaledOptimWrapper(optimizer=optimizer, clip_grad=dict(max_norm=1.0))
    wrapper.loss_scaler.scale(torch.ones(1))
    with pytest.raises(ValueError, match='whose parameters are float32'):
        wrapper.step()


@pytest.mark.parametrize(
    'kind, dtype', [(ScaledOptimWrapper, 'bfloat16'), (AutocastOptimWrapper, 'float16')]
)
def test_each_wrapper_names_the_other(kind, dtype):
    other = {ScaledOptimWrapper, AutocastOptimWrapper} - {kind}
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
    with pytest.raises(ValueError, match=other.pop().__name__):
        kind(dtype=dtype, optimizer=optimizer)
