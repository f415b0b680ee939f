"""SSD's Triton kernels: values in the interpreter, and what is taken."""

import interpreted
import pytest
import torch
from ssd_cases import operands
from triton_ssd_cases import CASES

from mmtransmamba.ops import backends, ssd_scan
from mmtransmamba.ops.ssd import triton as module
from mmtransmamba.ops.ssd import triton_plan as plan
from mmtransmamba.ops.ssd import triton_step

NO_INTERPRETER = interpreted.why_not()


@pytest.mark.skipif(NO_INTERPRETER is not None, reason=str(NO_INTERPRETER))
@pytest.mark.parametrize('case', CASES)
def test_in_the_interpreter(tmp_path_factory, case):
    reason = interpreted.outcomes('triton_ssd_cases', tmp_path_factory)[case]
    assert reason is None, reason


def test_it_is_the_first_choice_and_leaves_the_cpu_to_others():
    assert next(iter(backends.available('ssd'))) == 'triton'
    assert module.refuses(operands()) == 'it runs on a GPU, x is on cpu'
    assert backends.resolve('ssd', operands()) is not module
    assert list(backends.available('ssd_step')) == ['triton', 'portable']
    assert backends.resolve('ssd_step', operands()) is not triton_step


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_other_backends_still_get_float32(dtype):
    tensors = {name: x.to(dtype) for name, x in operands().items()}
    exact = {name: x.float() for name, x in tensors.items()}
    assert torch.equal(ssd_scan(**tensors)[0], ssd_scan(**exact)[0].to(dtype))


@pytest.mark.parametrize('heads', [1, 3, 24, 48])
@pytest.mark.parametrize('programs', [0, 1, 100, 264, 10**6])
def test_parts_of_a_group_have_all_its_heads_and_none_is_empty(heads, programs):
    parts = plan.head_parts(programs, heads)
    share = -(-heads // parts)  # as the kernels divide them
    assert (parts - 1) * share < heads <= parts * share
    assert parts == 1 or programs < plan.PROGRAMS


@pytest.mark.parametrize('size', [1, 15, 16, 17, 64, 65, 2048])
def test_tiles_are_powers_of_two_that_products_take(size):
    for tile, largest in (
        (plan.chunk_steps(size), plan.CHUNK),
        (plan.block_size(size), plan.BLOCK),
    ):
        assert tile in (16, 32, 64) and (tile >= size or tile == largest)
        assert tile // 2 < size or tile == plan.SMALLEST
    for precision in ('tf32', 'tf32x3'):
        steps = plan.chunk_steps(size)
        assert steps % plan.slice_size(steps, precision) == 0
