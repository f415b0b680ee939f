"""Machine code of the WKV's Triton kernels: a measure without a GPU.

Every lane owns a channel: nothing is exchanged, and nothing is spilled.
"""

import pytest
from triton_release import needs_current_triton

pytestmark = needs_current_triton
CHANNELS, TOKENS, PIECE = 192, 196, 8


def arguments(kernel, io):
    """Arguments of a launch: 192 channels, 196 tokens."""
    pointers = dict.fromkeys(('K', 'V', 'GRAD', 'Y', 'DK', 'DV'), io)
    sizes = dict(C=CHANNELS, T=TOKENS, NS=25, NG=1, length=PIECE, group=25, g_s=0)
    sizes |= {f'{name}_b': TOKENS * CHANNELS for name in 'kvg'}
    sizes |= {f'{name}_t': CHANNELS for name in 'kvg'}
    constants = dict(BC=32, PIECE=PIECE, SEPARATE=False, GROUPED=False)
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
