"""Machine code of the selective scan's Triton kernels: a measure without a GPU.

What the design says is held here: states in registers, one exponential for a state and
step, no exchange between lanes in the forward pass, loads of 16 bytes for B and C.
"""

import pytest
from triton_release import needs_current_triton

pytestmark = needs_current_triton
SHUFFLES = ('SHFL', 'BAR', 'LDS', 'STS', 'LDL', 'STL')
STATES = 16


def arguments(kernel, io='*fp32', flags='', directions=1, together=1, **changes):
    """Arguments of a launch: 384 channels, 196 steps, 16 states."""
    D, L = 384, 196
    pointers = dict.fromkeys(('U', 'DELTA', 'Z', 'Y', 'GRAD_Y', 'DU', 'X'), io)
    pointers |= dict.fromkeys(('DDELTA', 'DZ'), io) | {'ORDER': '*i64'}
    sizes = dict(D=D, L=L, WIDTH=D, G=1, S=1, NC=3, segment=256)
    sizes |= {f'{name}_b': L * D for name in ('u', 'delta', 'z', 'y', 'x')}
    sizes |= {f'{name}_l': D for name in ('u', 'delta', 'z', 'y', 'x')}
    names = ('u', 'delta', 'y', 'x', 'a', 'skip', 'bias')
    sizes |= {f'{name}_k': 0 for name in names}
    constants = dict(N=STATES, NP=STATES, J=1, K=directions, KP=together, BD=32, UN=4)
    constants |= dict(KB=directions, KC=directions, KM=directions, CK=64, T=8) | changes
    found = {}
    for parameter in kernel.params:
        name = parameter.name
        if parameter.is_constexpr:
            value = constants.get(name, name in flags.split())
            found[name] = ('constexpr', value)
        else:
            found[name] = sizes.get(name, pointers.get(name, '*fp32'))
    return found


@pytest.mark.parametrize(
    ('capability', 'io', 'flags', 'directions'),
    [
        (80, '*fp32', 'SOFTPLUS HAS_SKIP HAS_BIAS', 1),
        (90, '*fp32', 'SOFTPLUS HAS_SKIP HAS_BIAS', 1),
        (90, '*bf16', 'SOFTPLUS HAS_SKIP HAS_BIAS HAS_Z KEEP WANT_LAST', 1),
        (90, '*fp32', 'SOFTPLUS HAS_SKIP HAS_BIAS ORDERED PERMUTED KEEP', 4),
    ],
)
def test_the_forward_loop_keeps_to_its_lane(capability, io, flags, directions):
    from triton_machine_code import compiled

    from mmtransmamba.ops.selective_scan.triton_forward import scan_forward

    given = arguments(scan_forward, io, flags, directions)
    code = compiled(scan_forward, given, capability)
    assert code.registers <= 168 and code.stack == 0 and code.shared == 0
    loop = code.loops[0]
    assert not any(loop[name] for name in SHUFFLES)
    # Four steps: 16 exponentials each, two of softplus, two of the gate.
    assert loop['MUFU'] <= 4 * (STATES + (4 if 'HAS_Z' in flags else 2))
    assert loop['LDG.128'] == 4 * 2 * STATES // 4
    assert loop.total() <= 4 * (190 if 'KEEP' in flags else 155)


def test_directions_that_share_their_steps_share_the_exponentials():
    from triton_machine_code import compiled

    from mmtransmamba.ops.selective_scan.triton_forward import scan_forward

    flags = 'SOFTPLUS HAS_SKIP HAS_BIAS ORDERED KEEP'
    given = arguments(scan_forward, '*fp32', flags, 4, 4, UN=1)
    code = compiled(scan_forward, given, 80)
    assert code.registers <= 255 and code.stack == 0 and code.shared == 0
    assert not any(code.loops[0][name] for name in SHUFFLES)
    assert code.loops[0]['MUFU'] <= STATES + 2


def test_segments_keep_to_their_lane():
    from triton_machine_code import compiled

    from mmtransmamba.ops.selective_scan.triton_segments import scan_segment

    given = arguments(scan_segment, flags='SOFTPLUS HAS_BIAS')
    code = compiled(scan_segment, given, 90)
    assert code.registers <= 96 and code.stack == 0 and code.shared == 0
    assert not any(code.loops[0][name] for name in SHUFFLES)
    assert code.loops[0].total() <= 125


# Without a gate, by the assembler of Triton 3.9.
@pytest.mark.parametrize('gate, spilled', [('', 40), ('HAS_Z', 64)])
def test_the_backward_loop_reduces_by_shuffles_alone(gate, spilled):
    from triton_machine_code import compiled

    from mmtransmamba.ops.selective_scan.triton_backward import scan_backward

    given = arguments(scan_backward, flags=f'SOFTPLUS HAS_SKIP HAS_BIAS {gate}')
    code = compiled(scan_backward, given, 80 if gate else 90)
    # Scalars of the outer loops may be spilled, nothing that the inner loop reads.
    assert code.registers <= 255 and code.stack <= spilled and code.shared == 0
    inner = min((x for x in code.loops if x['SHFL']), key=lambda x: x.total())
    # Seven shuffles halve eight rows to one, two more finish; for B and for C.
    assert inner['SHFL'] == 2 * (7 + 2)
    assert inner['MUFU'] == 8 and not inner['BAR'] and not inner['LDL']
    assert not any(inner[name] for name in SHUFFLES[2:])
    assert inner.total() <= 8 * 34


def test_a_step_loads_its_state_in_pieces_of_16_bytes():
    from triton_machine_code import compiled

    from mmtransmamba.ops.selective_scan import triton_step_kernel as module

    block, columns = module.tile(1536, STATES)
    given = arguments(
        module.scan_step,
        flags='SOFTPLUS HAS_SKIP HAS_Z HAS_BIAS',
        BD=block,
        BN=columns,
    )
    given |= dict(D=1536, RB=1536, RC=1536, b_b=16, c_b=16, b_g=16, c_g=16)
    given |= {name: '*bf16' for name in ('U', 'DELTA', 'B', 'C', 'Z', 'Y')}
    given |= dict(u_b=1536, delta_b=1536, z_b=1536)
    code = compiled(module.scan_step, given, 90, warps=4)
    assert code.registers <= 48 and code.stack == 0
    # One piece of the state and of A for each of 128 lanes.
    assert block * columns == 4 * 128 and code.whole['LDG.128'] == 2
    assert code.whole['STG'] == 2  # that piece, and the output
