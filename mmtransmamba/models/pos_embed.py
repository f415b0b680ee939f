"""Learned position embeddings for images of any size."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_pos_embed(
    pos_embed: Tensor,
    source: tuple[int, int],
    target: tuple[int, int],
    cls_at: Callable[[int], int] | None = None,
) -> Tensor:
    """Resample a position embedding to another token grid, bicubically.

    Args:
        pos_embed: ``[1, h * w (+1), C]`` on the grid ``source = (h, w)``.
        source: Rows and columns of the given embedding.
        target: Rows and columns of the result.
        cls_at: Position of the class token as a function of the number of patches;
            its embedding is not resampled but moves to its new position. None: the
            embedding has no class token.

    Returns:
        ``[1, H * W (+1), C]`` in ``pos_embed``'s dtype; the input itself if the grids
        agree.

    Raises:
        ValueError: The number of positions does not match ``source``.
    """
    patches = source[0] * source[1]
    expected = patches + (cls_at is not None)
    if pos_embed.shape[1] != expected:
        raise ValueError(
            f'pos_embed has {pos_embed.shape[1]} positions, but its grid '
            f'{source[0]}x{source[1]} needs {expected}.'
        )
    if tuple(source) == tuple(target):
        return pos_embed
    if cls_at is not None:
        at, to = cls_at(patches), cls_at(target[0] * target[1])
        rest = torch.cat((pos_embed[:, :at], pos_embed[:, at + 1 :]), dim=1)
        rest = resize_pos_embed(rest, source, target)
        return torch.cat((rest[:, :to], pos_embed[:, at : at + 1], rest[:, to:]), dim=1)
    grid = pos_embed.float().unflatten(1, source).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=target, mode='bicubic', align_corners=False)
    return grid.flatten(2).transpose(1, 2).to(pos_embed.dtype)
