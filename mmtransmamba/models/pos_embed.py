"""Learned position embeddings on images of any size."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def resize_pos_embed(
    pos_embed: Tensor, source: tuple[int, int], target: tuple[int, int]
) -> Tensor:
    """Resample a position embedding to another token grid, bicubically.

    Args:
        pos_embed: ``[1, h * w, C]`` on the grid ``source = (h, w)``; no class token.
        source: Rows and columns it was made for.
        target: Rows and columns wanted.

    Returns:
        ``[1, H * W, C]`` in ``pos_embed``'s dtype, the input itself if grids agree.

    Raises:
        ValueError: The number of positions is not that of ``source``.
    """
    if pos_embed.shape[1] != source[0] * source[1]:
        raise ValueError(
            f'pos_embed has {pos_embed.shape[1]} positions, but its grid '
            f'{source[0]}x{source[1]} needs {source[0] * source[1]}.'
        )
    if tuple(source) == tuple(target):
        return pos_embed
    grid = pos_embed.float().unflatten(1, source).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=target, mode='bicubic', align_corners=False)
    return grid.flatten(2).transpose(1, 2).to(pos_embed.dtype)
