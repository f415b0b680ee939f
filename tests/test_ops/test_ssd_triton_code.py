"""Machine code of SSD's Triton kernels: a measure without a GPU.

Factors of products are loaded a slice at a time, so that nothing is spilled, and are
multiplied by tensor cores.
"""

import importlib

import pytest
from triton_release import needs_current_triton

from mmtransmamba.ops.ssd import triton_plan as plan

pytestmark = needs_current_triton
# Mamba-2 at 780 million parameters.
L, H, P, G, N = 2048, 48, 64, 1, 128


def arguments(kernel, io):
    """Arguments of a launch: batch 8, 2,048 steps, one group."""
    import triton.language as tl

    precision = 'tf32x3' if io == '*fp32' else 'tf32'
    names = ('X', 'DT', 'B', 'C', 'M', 'GRAD', 'Y', 'DX', 'DDT', 'DB', 'DC')
    pointers = dict.fromkeys(names, io)
    steps = plan.chunk_steps(L)
    sizes = dict(L=L, NC=L // steps, H=H, G=G, R=H // G, J=1, batch=8)
    sizes |= dict(dt_b=L * H, dt_l=H, dt_h=1)
    for name, count, width in (('x', H, P), ('g', H, P), *((x, G, N) for x in 'bcm')):
        sizes |= {f'{name}_b': L * count * width, f'{name}_l': count * width}
        sizes |= {f'{name}_h': width}
    constants = dict(P=P, N=N, Q=steps, BP=plan.block_size(P), BN=plan.block_size(N))
    constants |= dict(SLICE=plan.slice_size(steps, precision), PRECISION=precision)
    constants |= dict(MIX=tl.bfloat16 if io == '*bf16' else tl.float32)
    constants |= dict(SIZE=P * N, BLOCK=plan.CARRIED, AHEAD=plan.AHEAD)
    constants |= dict(REVERSE=True, HAS_START=True, HAS_SKIP=True)
    return {
        x.name: ('constexpr', constants[x.name])
        if x.is_constexpr
        else sizes.get(x.name, pointers.get(x.name, '*fp32'))
        for x in kernel.params
    }


@pytest.mark.parametrize(
    ('module', 'name', 'capability', 'io', 'registers', 'products'),
    [
        ('states', 'ssd_chunk_states', 80, '*fp16', 96, 'HMMA'),
        ('output', 'ssd_output', 90, '*bf16', 80, 'HGMMA'),
        ('gradients', 'ssd_head_gradients', 80, '*fp32', 255, 'HMMA'),
        ('groups', 'ssd_group_gradients', 90, '*fp32', 200, 'HGMMA'),
    ],
)
def test_tensor_cores_multiply_and_nothing_is_spilled(
    module, name, capability, io, registers, products
):
    from triton_machine_code import compiled

    module = importlib.import_module(f'mmtransmamba.ops.ssd.triton_{module}')
    kernel = getattr(module, name)
    code = compiled(kernel, arguments(kernel, io), capability, warps=plan.WARPS)
    assert code.registers <= registers and code.stack == 0
    assert code.shared <= 16384
    assert code.whole[products] and code.whole['LDG.128']
    assert not code.whole['LDL'] and not code.whole['STL']


def test_states_are_carried_without_exchanges_and_loaded_ahead():
    from triton_machine_code import compiled

    from mmtransmamba.ops.ssd.triton_states import ssd_carry

    code = compiled(ssd_carry, arguments(ssd_carry, '*fp32'), 90, plan.WARPS)
    assert code.registers <= 48 and code.stack == 0 and code.shared == 0
    assert not any(code.whole[x] for x in ('SHFL', 'BAR', 'LDS', 'STS'))
    # A state, and both parts of the logarithm of a decay.
    assert code.loops[0]['LDG'] == 3 * plan.AHEAD
    assert code.loops[0]['MUFU'] == plan.AHEAD


def test_a_step_loads_its_state_in_pieces_of_16_bytes():
    from triton_machine_code import compiled

    from mmtransmamba.ops.ssd import triton_step_kernel as module

    block, columns = module.tile(P, N)
    given = arguments(module.ssd_step, '*bf16')
    given |= dict(BP=('constexpr', block), BN=('constexpr', columns))
    given |= dict(x_h=P, b_h=N, c_h=N)
    code = compiled(module.ssd_step, given, 90, warps=4)
    assert code.registers <= 64 and code.stack == 0
    assert code.whole['LDG.128'] >= block * columns // 128 // 4
