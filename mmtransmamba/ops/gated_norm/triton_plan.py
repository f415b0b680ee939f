"""How the Triton kernels divide the gated norm.

A table replaces tuning at the first call: every process sums in the same order and
returns the same bits. The numbers are predictions, not measured.
"""

ELEMENTS = 2048
"""Elements of a tile of small groups."""
PROGRAMS = 1024
"""Programs of the backward pass, about, over all groups of channels."""


def warps_of(padded: int) -> int:
    """Warps of a program, so that a thread has 8 elements of a wide tile.

    Args:
        padded: Channels of a group, padded to a power of two.
    """
    return min(16, max(4, padded // 256))
