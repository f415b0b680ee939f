"""How the Triton kernels divide a selective scan, a function of its shapes alone.

A table replaces tuning at the first call: there is no stall, and every process sums in
the same order and returns the same bits. The numbers are predictions for a device with
132 multiprocessors of four schedulers, see ``docs/kernels.md``; they were not measured.
"""

from typing import NamedTuple

WARP = 32
SCHEDULERS = 528
MAX_STATES = 256
STATES_IN_REGISTERS = 16
"""Of 32 the compiler would hand the rows of B and C through shared memory."""
TILE = 8
"""Steps that the backward pass takes at once; its reduction is written for eight."""
UNROLL = 4
"""Steps whose operands the forward pass loads ahead, divided by the directions whose
states a program holds."""
WIDE_FROM = 4 * SCHEDULERS
"""Warps from which blocks of 128 channels are used in the forward pass."""
SEGMENTS_BELOW = 3 * SCHEDULERS // 2
"""Warps below which a long sequence is divided into segments."""
LONG = 2048
SHORTEST_SEGMENT = 1024


class Division(NamedTuple):
    """Sizes of one launch.

    Attributes:
        states (int): States of a channel that a program keeps, a power of two.
        state_groups (int): Programs that share the states of a channel.
        block (int): Channels of a program.
        warps (int): Warps of a program.
        checkpoint (int): Steps between two stored states.
        segment (int): Steps of a program, a multiple of ``checkpoint``.
        segments (int): Programs that share the steps of a channel.
    """

    states: int
    state_groups: int
    block: int
    warps: int
    checkpoint: int
    segment: int
    segments: int


def checkpoint_steps(states: int) -> int:
    """Steps between two stored states, which then take at most about as much as ``u``.

    A multiple of :data:`TILE` and of :data:`UNROLL`.
    """
    if states <= 16:
        return 64
    return 128 if states <= 64 else 256


def divide(
    walks: int, width: int, groups: int, length: int, states: int, backward: bool
) -> Division:
    """Divide a scan among programs.

    Args:
        walks (int): Batch entries times directions that are scanned separately.
        width (int): Channels of a group.
        groups (int): Groups of channels.
        length (int): Steps.
        states (int): States of a channel.
        backward (bool): Whether it is for the backward kernel, which is written for
            blocks of one warp.
    """
    held = 1 << (states - 1).bit_length()
    if held > STATES_IN_REGISTERS:
        held = STATES_IN_REGISTERS
    state_groups = -(-states // held)
    warps = walks * groups * state_groups * -(-width // WARP)
    wide = not backward and warps >= WIDE_FROM and width >= 4 * WARP
    checkpoint = checkpoint_steps(states)
    segment = -(-length // checkpoint) * checkpoint
    if warps < SEGMENTS_BELOW and length > LONG:
        most = max(1, length // SHORTEST_SEGMENT)
        wanted = min(-(-SEGMENTS_BELOW // max(1, warps)), most)
        segment = -(-length // (wanted * checkpoint)) * checkpoint
    return Division(
        states=held,
        state_groups=state_groups,
        block=4 * WARP if wide else WARP,
        warps=4 if wide else 1,
        checkpoint=checkpoint,
        segment=segment,
        segments=-(-length // segment),
    )
