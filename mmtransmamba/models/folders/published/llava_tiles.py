"""How a LLaVA in the original layout cuts images into tiles.

Source: LLaVA-VL/LLaVA-NeXT, ``llava/mm_utils.py`` and ``llava/model/llava_arch.py``.
"""

from __future__ import annotations

import ast
import re
from typing import Any

from mmtransmamba.models.folders.published.fields import check_values

_WHOLE, _TILES = ('pad', 'square'), 'anyres'
_AT_MOST = re.compile(rf'{_TILES}_max_([1-9][0-9]*)')


def read_tiles(where: str, raw: dict[str, Any]) -> int | None:
    """The number of tiles whose tokens an image has at most.

    ``anyres_max_9`` scales down what has more tokens than nine tiles; ``anyres`` keeps
    all.

    Args:
        where: The file, for the message.
        raw: Its fields.

    Returns:
        The number, 0 for no limit; None if an image is not cut.

    Raises:
        ValueError: ``image_aspect_ratio`` is another.
    """
    value = raw.get('image_aspect_ratio')
    if value is None or value in _WHOLE:
        return None
    if value == _TILES:
        return 0
    limit = _AT_MOST.fullmatch(value) if isinstance(value, str) else None
    if limit is None:
        accepted = ' or '.join(map(repr, (*_WHOLE, _TILES, f'{_TILES}_max_9')))
        raise ValueError(
            f'{where}: image_aspect_ratio={value!r} cannot be read; it must be '
            f'{accepted} (or another number).'
        )
    return int(limit[1])


def read_grids(where: str, raw: dict[str, Any], side: int) -> list[list[int]] | None:
    """Heights and widths of the tilings; None if an image is not cut.

    Published are widths and heights. Of two tilings that suit an image equally, the
    first is taken, so the order matters.

    Args:
        where: The file, for the message.
        raw: Its fields.
        side: Height and width of a tile in pixels.

    Raises:
        ValueError: The fields contradict each other, or a tiling is not made of tiles.
    """
    tiles = read_tiles(where, raw) is not None
    merge = ('spatial_unpad',) if tiles else ('flat', None)
    at = f'{where}: image_aspect_ratio={raw.get("image_aspect_ratio")!r}'
    fields = dict(mm_patch_merge_type=None) | raw
    check_values(at, fields, dict(mm_patch_merge_type=merge))
    if not tiles:
        return None
    given = raw.get('image_grid_pinpoints')
    if isinstance(given, str):
        try:
            given = ast.literal_eval(given)
        except (SyntaxError, ValueError):
            given = None
    good = (
        isinstance(given, list | tuple)
        and given
        and all(
            isinstance(sides, list | tuple)
            and len(sides) == 2
            and all(type(n) is int and n > 0 and n % side == 0 for n in sides)
            for sides in given
        )
    )
    if not good:
        raise ValueError(
            f'{where}: image_grid_pinpoints={raw.get("image_grid_pinpoints")!r} must '
            f'be a list of widths and heights, each a multiple of the tile, {side}.'
        )
    return [[height, width] for width, height in given]
