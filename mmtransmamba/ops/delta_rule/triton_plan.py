"""How the Triton kernels divide a delta rule, a function of its shapes alone.

A table replaces tuning at the first call: there is no stall, and every process sums in
the same order and returns the same bits. The numbers are predictions for a device with
132 multiprocessors, see ``docs/kernels.md``; they were not measured.
"""

from typing import NamedTuple

MAX_KEYS = 256
CHUNK = 32
"""Steps of a chunk, at most. With 64, matrices of a chunk do not fit in registers."""
BLOCK = 16
"""Steps of a block of a chunk: the smallest matrix that tensor cores multiply."""
KEY_TILE = 32
GRADIENT_TILE = {'tf32': 32, 'tf32x3': 16, 'ieee': 16}
"""Key channels of a tile where the gradients of queries and keys are computed, by the
precision of products: three products of TF32 need twice the registers."""
VALUE_TILES = (32, 16)
ENOUGH = 2 * 132
"""Programs that a walk along the sequence should have, or its columns are divided."""


class Division(NamedTuple):
    """Sizes of the tiles.

    Attributes:
        chunk (int): Steps of a chunk, a power of two.
        chunks (int): Chunks of a sequence.
        key_tile (int): Key channels of a tile.
        key_tiles (int): Tiles that cover the key channels.
        value_tile (int): Value channels of a tile, and of a program of a walk.
    """

    chunk: int
    chunks: int
    key_tile: int
    key_tiles: int
    value_tile: int


def divide(sequences: int, length: int, keys: int, values: int) -> Division:
    """Divide a delta rule among programs.

    Args:
        sequences (int): Batch entries times heads.
        length (int): Steps.
        keys (int): Key channels of a head.
        values (int): Value channels of a head.
    """
    chunk = min(CHUNK, _padded(length))
    key_tile = min(KEY_TILE, _padded(keys))
    key_tiles = -(-keys // key_tile)
    # A program of a walk keeps a state of all key channels in registers.
    fitting = [
        x
        for x in VALUE_TILES
        if x <= _padded(values) and x * key_tile * key_tiles <= 4096
    ]
    value_tile = next(
        (x for x in fitting if sequences * -(-values // x) >= ENOUGH), fitting[-1]
    )
    return Division(chunk, -(-length // chunk), key_tile, key_tiles, value_tile)


def _padded(size: int) -> int:
    return max(BLOCK, 1 << (size - 1).bit_length())
