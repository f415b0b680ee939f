"""Machine code of the convolution's Triton kernels: a measure without a GPU."""

import pytest
from triton_release import needs_current_triton

pytestmark = needs_current_triton


def arguments(kernel, io):
    """Arguments of a launch: 384 channels, 196 steps, four taps, two directions."""
    D, L, batch = 384, 196, 64
    pointers = dict.fromkeys(('X', 'Y', 'GRAD', 'DX'), io) | {'REVERSE': '*i32'}
    sizes = dict(B=batch, L=L, D=D, tiles=7, x_b=L * D, x_l=D)
    sizes |= dict(g_k=batch * L * D, g_b=L * D, g_l=D)
    constants = dict(K=2, W=4, TT=32, BD=64, SILU=True)
    return {
        x.name: ('constexpr', constants[x.name])
        if x.is_constexpr
        else sizes.get(x.name, pointers.get(x.name, '*fp32'))
        for x in kernel.params
    }


@pytest.mark.parametrize(
    ('name', 'capability', 'io', 'shared'),
    [
        ('conv_forward', 80, '*bf16', 0),
        # Sums over the steps of a tile cross warps.
        ('conv_weights', 90, '*fp32', 2048),
        ('conv_inputs', 90, '*fp32', 0),
    ],
)
def test_nothing_is_spilled_and_loads_are_wide(name, capability, io, shared):
    from triton_machine_code import compiled

    from mmtransmamba.ops.causal_conv1d import triton_kernels

    kernel = getattr(triton_kernels, name)
    code = compiled(kernel, arguments(kernel, io), capability, warps=4)
    assert code.registers <= 168 and code.stack == 0 and code.shared <= shared
    assert code.whole['LDG.128'] >= 4
