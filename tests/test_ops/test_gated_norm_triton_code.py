"""Machine code of the gated norm's Triton kernels: a measure without a GPU."""

import pytest
from triton_release import needs_current_triton

pytestmark = needs_current_triton


def arguments(kernel, channels, group, io, **constants):
    """Arguments of a launch: 8 times 2048 tokens."""
    pointers = dict.fromkeys(('Y', 'Z', 'OUT', 'GRAD', 'DY', 'DZ'), io)
    sizes = dict(M=2**14, D=channels, G=group, eps='fp32', tiles=8)
    sizes |= dict.fromkeys(('y_m', 'z_m', 'g_m'), channels)
    constants |= dict(R=max(1, 2048 // group), BG=group)
    return {
        x.name: ('constexpr', constants[x.name])
        if x.is_constexpr
        else sizes.get(x.name, pointers.get(x.name, '*fp32'))
        for x in kernel.params
    }


@pytest.mark.parametrize(
    ('channels', 'group', 'gate_first', 'capability', 'io'),
    [
        (2048, 2048, True, 80, '*bf16'),
        (2048, 64, True, 90, '*bf16'),
        (2048, 64, False, 80, '*fp32'),
        (4096, 4096, True, 90, '*fp32'),
    ],
)
def test_nothing_is_spilled_and_loads_are_wide(
    channels, group, gate_first, capability, io
):
    from triton_machine_code import compiled

    from mmtransmamba.ops.gated_norm import triton_kernels
    from mmtransmamba.ops.gated_norm.triton_plan import warps_of

    kind = dict(HAS_Z=True, GATE_FIRST=gate_first, SILU=True)
    for name, registers in (('norm_forward', 64), ('norm_backward', 168)):
        kernel = getattr(triton_kernels, name)
        given = arguments(kernel, channels, group, io, **kind)
        warps = warps_of(group)
        code = compiled(kernel, given, capability, warps)
        assert code.stack == 0 and code.registers <= registers, (name, code.registers)
        assert code.whole['LDG.128'] >= 2, name
        # Sums of a row, and of a column, cross warps; nothing else does.
        assert code.shared <= 8192, (name, code.shared)
