"""Position embeddings of a source on the token grid of a target."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

INTERPOLATIONS = ('bicubic', 'bilinear')
EXTRA_TOKENS = ('cls_token', 'dist_token', 'reg_token')


def source_grid_of(
    state: Mapping[str, Tensor], length: int, grid: tuple[int, int] | None
) -> tuple[int, tuple[int, int]]:
    """Number of extra tokens in front, and grid, of a source's ``pos_embed``.

    Args:
        state: Weights of the source; class, distillation and register tokens may
            have positions.
        length: Number of positions.
        grid: Rows and columns if known; otherwise the grid must be square.

    Raises:
        ValueError: The positions do not form such a grid.
    """
    tokens = [state[name].shape[1] for name in EXTRA_TOKENS if name in state]
    extras = [sum(tokens[:n]) for n in range(len(tokens), -1, -1)]
    for extra in extras:
        if grid is not None:
            if extra + grid[0] * grid[1] == length:
                return extra, tuple(grid)
        elif math.isqrt(length - extra) ** 2 == length - extra:
            side = math.isqrt(length - extra)
            return extra, (side, side)
    wanted = 'a square grid' if grid is None else f'the grid {grid[0]}x{grid[1]}'
    raise ValueError(
        f'pos_embed: {length} positions of the source, {extras[0]} of them of extra '
        f'tokens at most, do not make {wanted}. Set source_grid=(rows, columns).'
    )


def target_grid_of(length: int, grid: tuple[int, int] | None) -> tuple[int, int]:
    """Grid of a target's ``pos_embed``, counted without a class token.

    Raises:
        ValueError: The positions do not form ``grid``, or a square if it is None.
    """
    side = math.isqrt(length)
    found = (side, side) if grid is None else tuple(grid)
    if found[0] * found[1] != length:
        wanted = 'a square grid' if grid is None else f'the grid {grid[0]}x{grid[1]}'
        raise ValueError(
            f'pos_embed: {length} positions of the target do not make {wanted}. Set '
            'target_grid=(rows, columns).'
        )
    return found


def resample(
    pos_embed: Tensor, source: tuple[int, int], target: tuple[int, int], mode: str
) -> Tensor:
    """``[1, h * w, C]`` on the grid ``source`` to ``[1, H * W, C]`` on ``target``."""
    if source == target:
        return pos_embed
    grid = pos_embed.float().unflatten(1, source).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=target, mode=mode, align_corners=False)
    return grid.flatten(2).transpose(1, 2)


def with_class_token(
    patches: Tensor, token: Tensor | None, at: int
) -> tuple[Tensor, Tensor]:
    """Embeddings for a target with a class token among its patches.

    Args:
        patches: ``[1, N, C]``.
        token: ``[1, 1, C]``, None if the source has no position for one.
        at: Position of the class token.

    Returns:
        The values ``[1, N (+ 1), C]``, and the positions in the target they are for.
    """
    positions = torch.arange(patches.shape[1] + 1)
    if token is None:
        return patches, torch.cat((positions[:at], positions[at + 1 :]))
    return torch.cat((patches[:, :at], token, patches[:, at:]), dim=1), positions
