"""How the Triton kernels divide SSD, a function of its shapes alone.

A table replaces tuning at the first call: there is no stall, and every process sums in
the same order and returns the same bits. The numbers follow from counts of registers
and of shared memory, see ``docs/kernels.md``; they were not measured.
"""

CHUNK = 64
"""Most steps of a chunk, within which the scan is a product of matrices."""
BLOCK = 64
"""Most channels or states of a tile."""
SMALLEST = 16
"""Rows and columns that a product of tiles needs."""
SLICE = 32
"""Columns of the left factor of a product, which are loaded at once. With more, factors
would not fit in registers."""
SLICE_OF_THREE = 16
"""The same where every factor is divided into two, of three products for one."""
WARPS = 8
"""Warps of a program. Four would need more registers than there are."""
CARRIED = 256
"""Entries of a state that one program carries along the chunks."""
AHEAD = 4
"""States that are loaded before they are carried."""
PROGRAMS = 264
"""Programs that fill a GPU: two for each multiprocessor of an H100."""


def chunk_steps(length: int) -> int:
    """Steps of a chunk, a power of two."""
    return _tile(length, CHUNK)


def block_size(size: int) -> int:
    """Channels or states of a tile, a power of two."""
    return _tile(size, BLOCK)


def slice_size(steps: int, precision: str) -> int:
    """Columns of a factor.

    Args:
        steps: Steps of a chunk.
        precision: Precision that the product asks for.
    """
    return min(steps, SLICE_OF_THREE if precision == 'tf32x3' else SLICE)


def head_parts(programs: int, heads: int) -> int:
    """Parts into which the heads of a group are divided for parallel work.

    Each adds one partial gradient of B and of C, hence no more than needed.

    Args:
        programs: Programs there are without a division.
        heads: Heads of a group.
    """
    share = -(-heads // max(1, min(heads, -(-PROGRAMS // max(1, programs)))))
    return -(-heads // share)


def _tile(size: int, largest: int) -> int:
    return min(largest, max(SMALLEST, 1 << (size - 1).bit_length()))
