"""The selective scan's Triton kernels: values, machine code, and what is taken."""

import interpreted
import pytest
import torch
from scan_cases import plain_operands
from triton_scan_cases import CASES

from mmtransmamba.ops import backends, selective_scan_fn
from mmtransmamba.ops.selective_scan import triton as module
from mmtransmamba.ops.selective_scan import triton_plan as plan

NO_INTERPRETER = interpreted.why_not()


@pytest.fixture(scope='module')
def outcomes(tmp_path_factory):
    return interpreted.outcomes('triton_scan_cases', tmp_path_factory)


@pytest.mark.skipif(NO_INTERPRETER is not None, reason=str(NO_INTERPRETER))
@pytest.mark.parametrize('case', CASES)
def test_in_the_interpreter(outcomes, case):
    assert outcomes[case] is None, outcomes[case]


def test_it_is_the_first_choice_and_leaves_the_cpu_to_others():
    assert next(iter(backends.available('selective_scan'))) == 'triton'
    operands = plain_operands()
    assert module.refuses(operands) == 'it runs on a GPU, u is on cpu'
    assert backends.resolve('selective_scan', operands) is not module


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_other_backends_still_get_float32(dtype):
    operands = {k: v.to(dtype) for k, v in plain_operands().items()}
    assert module.refuses(operands) == 'it runs on a GPU, u is on cpu'
    y = selective_scan_fn(**operands, delta_softplus=True)
    exact = {k: v.float() for k, v in operands.items()}
    expected = selective_scan_fn(**exact, delta_softplus=True)
    assert torch.equal(y, expected.to(dtype))


@pytest.mark.parametrize('backward', [False, True])
@pytest.mark.parametrize('states', [1, 3, 16, 17, 64, 256])
@pytest.mark.parametrize(
    ('walks', 'width', 'groups', 'length'),
    [(64, 384, 1, 196), (8, 1536, 1, 4096), (1, 1536, 1, 131072), (1, 5, 3, 1)],
)
def test_programs_cover_a_scan(walks, width, groups, length, states, backward):
    cut = plan.divide(walks, width, groups, length, states, backward)
    assert cut.states * cut.state_groups >= states
    assert cut.segments * cut.segment >= length > (cut.segments - 1) * cut.segment
    assert cut.segment % cut.checkpoint == 0
    assert cut.checkpoint % plan.TILE == 0 and cut.checkpoint % plan.UNROLL == 0
    assert cut.block == plan.WARP * cut.warps and (cut.warps == 1 or not backward)


def test_few_channels_of_a_long_sequence_are_divided():
    def warps(length):
        cut = plan.divide(1, 1536, 1, length, 16, False)
        return 1536 // plan.WARP * cut.segments

    assert warps(2048) == 48
    assert warps(131072) >= 1.4 * plan.SCHEDULERS
