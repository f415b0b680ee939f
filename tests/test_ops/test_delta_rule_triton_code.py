"""Machine code of the delta rule's Triton kernels: a measure without a GPU."""

import importlib

import pytest
from triton_release import needs_current_triton

from mmtransmamba.ops.delta_rule import triton_plan as plan

pytestmark = needs_current_triton
LONG = 4096, 64  # steps, channels of keys and of values


def arguments(kernel, io, shape, flags):
    """Arguments of a launch: 2 sequences, 16 heads, 8 of queries and keys."""
    (length, width), heads, groups = shape, 16, 8
    cut = plan.divide(2 * heads, length, width, width)
    precision = 'tf32x3' if io == '*fp32' else 'tf32'
    tile = cut.key_tile
    if 'keys' in kernel.fn.__name__:
        tile = min(tile, plan.GRADIENT_TILE[precision])
    names = 'QUERY', 'KEY', 'VALUE', 'BETA', 'GRAD', 'Y', 'GATE'
    pointers = dict.fromkeys(names, io) | {'scale': 'fp32'}
    sizes = dict(L=length, NC=cut.chunks, H=heads, REPEATS=2, KEYS=width, VALUES=width)
    sizes |= dict(part=2 * heads * cut.chunk * cut.chunks, g_d=1)
    for name, count, of_head in (
        *((name, groups, width) for name in 'qk'),
        *((name, heads, width) for name in ('v', 'g', 'grad')),
        ('beta', heads, 1),
    ):
        sizes |= {f'{name}_b': length * count * of_head, f'{name}_h': of_head}
        sizes[f'{name}_l'] = count * of_head
    constants = dict(BT=cut.chunk, BK=tile, BD=tile, BV=cut.value_tile)
    constants |= dict(NK=cut.key_tiles, BLOCKS=-(-width // cut.value_tile))
    constants |= dict(KEYS=width, VALUES=width, PRECISION=precision, EXACT='tf32x3')
    return {
        x.name: ('constexpr', constants.get(x.name, x.name in flags.split()))
        if x.is_constexpr
        else sizes.get(x.name, pointers.get(x.name, '*fp32'))
        for x in kernel.params
    }


def code_of(name, capability, io, shape, flags='', warps=4):
    from triton_machine_code import compiled

    module, kernel = name.split('.')
    module = importlib.import_module(f'mmtransmamba.ops.delta_rule.triton_{module}')
    kernel = getattr(module, f'delta_{kernel}')
    return compiled(kernel, arguments(kernel, io, shape, flags), capability, warps)


@pytest.mark.parametrize(
    ('name', 'capability', 'io', 'flags', 'warps', 'spilled'),
    [
        # Two scalars, by the assembler of Triton 3.9.
        ('walk.walk', 90, '*fp32', 'HAS_START', 4, 8),
        ('walk.walk_back', 80, '*bf16', 'CHANNEL HAS_GRAD_LAST', 4, 0),
        # Its comment lists what was tried to avoid this.
        ('walk.walk_back', 90, '*fp32', 'HAS_GRAD_LAST', 4, 96),
        # A few scalars.
        ('gradients.keys', 80, '*fp32', '', 4, 32),
        ('channels.channel_keys', 90, '*fp32', '', 1, 0),
    ],
)
def test_nothing_is_spilled_and_products_run_on_tensor_cores(
    name, capability, io, flags, warps, spilled
):
    code = code_of(name, capability, io, LONG, flags, warps)
    assert code.registers <= 255 and code.stack <= spilled
    # Two programs of four warps fit on a multiprocessor.
    assert code.shared <= 32 * 1024
    assert code.whole['HMMA'] + code.whole['HGMMA'] > 0
    assert code.loops[0].total() <= 2700


@pytest.mark.parametrize(
    ('name', 'length', 'flags', 'warps'),
    [
        ('tiles.sums', 9, '', 1),
        ('prepare.prepare', 9, 'KEEP', 4),
        ('prepare.solve', 9, '', 4),
        # Fewer channels than steps of a chunk.
        ('walk.walk', 20, 'KEEP', 4),
        ('walk.walk_back', 20, '', 4),
        ('gradients.pairs', 20, 'CHANNEL', 4),
        ('channels.channel_products', 20, '', 1),
        ('channels.channel_gates', 20, '', 1),
    ],
)
def test_a_short_sequence_of_narrow_heads_compiles(name, length, flags, warps):
    code = code_of(name, 80, '*fp16', (length, 6), flags, warps)
    assert code.stack == 0
