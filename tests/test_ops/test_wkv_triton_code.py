"""Machine code of the WKV's Triton kernels: a measure without a GPU.

Every lane owns a channel: nothing is exchanged, and nothing is spilled.
"""

import pytest
from triton_release import needs_current_triton

from mmtransmamba.ops.wkv import triton_plan as plan

pytestmark = needs_current_triton
CHANNELS, TOKENS, PIECE = 192, 196, 8


def arguments(kernel, io):
    """Arguments of a launch: 192 channels, 196 tokens."""
    names = ('K', 'V', 'GRAD', 'Y', 'DK', 'DV', 'R', 'Q', 'P', 'X')
    pointers = dict.fromkeys(names, io)
    sizes = dict(C=CHANNELS, T=TOKENS, NS=25, NG=1, length=PIECE, group=25, g_s=0)
    sizes |= dict(x_s=0, NC=5, chunk=40)
    sizes |= {f'{name}_b': TOKENS * CHANNELS for name in 'kvgrqpax'}
    sizes |= {f'{name}_t': CHANNELS for name in 'kvgrqpax'}
    constants = dict(BC=32, PIECE=PIECE, SEPARATE=False, GROUPED=False)
    constants |= dict(D=64, NP=64, NR=plan.ROWS, NV=plan.COLUMNS, TILE=plan.TILE)
    constants |= dict(BACKWARDS=False)
    return {
        x.name: ('constexpr', constants[x.name])
        if x.is_constexpr
        else sizes.get(x.name, pointers.get(x.name, '*fp32'))
        for x in kernel.params
    }


@pytest.mark.parametrize(
    ('module', 'name', 'capability', 'io', 'registers', 'exponentials'),
    [
        # Two walks over the tokens, one exponential for each.
        ('totals', 'wkv_totals', 90, '*fp32', 72, 2),
        # Two walks, and three exponentials for the output.
        ('forward', 'wkv_output', 80, '*bf16', 96, 5),
        ('backward', 'wkv_gradient_totals', 90, '*fp32', 128, 7),
        ('backward', 'wkv_gradients', 80, '*fp32', 255, 11),
    ],
)
def test_lanes_keep_to_themselves_and_nothing_is_spilled(
    module, name, capability, io, registers, exponentials
):
    import importlib

    from triton_machine_code import compiled

    module = importlib.import_module(f'mmtransmamba.ops.wkv.triton_{module}')
    kernel = getattr(module, name)
    code = compiled(kernel, arguments(kernel, io), capability)
    assert code.registers <= registers and code.stack == 0 and code.shared == 0
    assert not any(code.whole[x] for x in ('SHFL', 'BAR', 'LDL', 'STL', 'LDS', 'STS'))
    # Reciprocals: of the denominators, and to divide the program's number.
    reciprocals = PIECE * (name != 'wkv_totals') + 2
    assert code.whole['MUFU'] <= PIECE * exponentials + reciprocals


def test_carrying_loads_the_next_piece_while_it_adds_one():
    from triton_machine_code import compiled

    from mmtransmamba.ops.wkv.triton_totals import wkv_carry

    code = compiled(wkv_carry, arguments(wkv_carry, '*fp32'), 90)
    assert code.registers <= 64 and code.stack == 0 and code.shared == 0
    assert code.loops[0]['MUFU'] == 1 and code.loops[0]['LDG'] == 4
    assert code.loops[0].total() <= 90


def test_a_matrix_state_stays_in_registers():
    from triton_machine_code import compiled

    from mmtransmamba.ops.wkv.triton_v6_walk import wkv6_walk

    code = compiled(wkv6_walk, arguments(wkv6_walk, '*fp32'), 90)
    assert code.registers <= 128 and code.stack == 0 and code.shared == 0
    loop = code.loops[0]
    # Five shuffles sum the token's weight for itself; the rest is loads of 16 bytes and
    # three operations for each of 64 keys, two of which are fused.
    assert loop['SHFL'] == 5 and not loop['BAR'] and not loop['STS']
    assert loop['LDG.128'] == 3 * 64 // 4
    assert loop.total() <= 350


def test_gradients_of_rows_of_a_matrix_state_are_not_spilled():
    from triton_machine_code import compiled

    from mmtransmamba.ops.wkv.triton_v6_rows import wkv6_rows

    code = compiled(wkv6_rows, arguments(wkv6_rows, '*fp32'), 90)
    assert code.registers <= 255 and code.stack == 0 and code.shared == 0
    assert not any(code.whole[x] for x in ('BAR', 'LDL', 'STL'))
