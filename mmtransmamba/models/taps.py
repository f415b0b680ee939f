"""Taps: identity modules through which features leave a model.

A backbone places a :class:`LayerTap` after every block and a mixer a
:class:`DirectionTap` next to its scan. Without a listener, a tap returns at once and
the mixer computes nothing extra. So training without a teacher, inference and export
have no overhead. :mod:`mmtransmamba.transfer.tap_recorder` is the listener.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass
class LayerFeature:
    """Tokens after one block.

    Attributes:
        tokens: Patch tokens in raster order, ``[B, L, C]``.
        grid: Rows and columns of the token grid, ``H * W == L``; for a video, preceded
            by the frames.
        cls: Class token ``[B, C]``, or None in a model without one.
    """

    tokens: Tensor
    grid: tuple[int, ...]
    cls: Tensor | None = None


@dataclass
class DirectionFeature:
    """Outputs of the single scan directions of one mixer, at chosen steps.

    Attributes:
        values: Output of direction k at its m-th chosen step, ``[B, K, M, D]``.
        token_index: Raster index of the token each value belongs to, ``[K, M]``.
        grid: Rows and columns of the token grid; for a video, preceded by the frames.
        project: Maps ``values`` to ``[B, K, M, C]``, the contribution of each
            direction to the mixer's output (gate and shared output projection).
    """

    values: Tensor
    token_index: Tensor
    grid: tuple[int, ...]
    project: Callable[[Tensor], Tensor]


def patch_index(
    scan_order: Tensor, steps: Tensor, cls_index: int | None = None
) -> Tensor:
    """Raster index among the patches ``[K, M]`` of the tokens read in ``steps``.

    Args:
        scan_order: int64 ``[K, L]``, the token that each step reads.
        steps: int64 ``[K, M]``, without steps that read the class token.
        cls_index: Index of the class token, which is not counted among the patches.
    """
    tokens = scan_order.gather(1, steps)
    return tokens if cls_index is None else tokens - (tokens > cls_index).long()


class LayerTap(nn.Module):
    """Identity on the tokens after a block, see the module's docstring.

    Args:
        dim: Width C of the tokens.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.listener: Callable[[LayerFeature], None] | None = None

    def forward(
        self, tokens: Tensor, grid: tuple[int, ...], cls_index: int | None = None
    ) -> Tensor:
        """Return ``tokens`` ``[B, L (+1), C]`` unchanged, and notify the listener.

        Args:
            tokens: Tokens after the block.
            grid: Rows and columns of the patch tokens.
            cls_index: Position of the class token among them, if there is one.
        """
        if self.listener is None:
            return tokens
        if cls_index is None:
            self.listener(LayerFeature(tokens, grid))
        else:
            patches = torch.cat(
                (tokens[:, :cls_index], tokens[:, cls_index + 1 :]), dim=1
            )
            self.listener(LayerFeature(patches, grid, tokens[:, cls_index]))
        return tokens

    def extra_repr(self) -> str:
        return f'dim={self.dim}'


class DirectionTap(nn.Module):
    """Access to the directions of a multi-directional mixer.

    The mixer calls :meth:`steps` for the requested scan steps (None: no listener), has
    the scan return those, and passes them to :meth:`forward`.

    Args:
        dim: Width D of a direction's inner output.
        num_directions: Number K of directions.
    """

    def __init__(self, dim: int, num_directions: int) -> None:
        super().__init__()
        self.dim = dim
        self.num_directions = num_directions
        self.select: Callable[[Tensor], Tensor] | None = None
        self.listener: Callable[[DirectionFeature], None] | None = None

    def steps(self, scan_order: Tensor, cls_index: int | None = None) -> Tensor | None:
        """Scan steps to read; None without a listener.

        Args:
            scan_order: int64 ``[K, L]``, the token that each step reads.
            cls_index: Index of the class token, which is not read.

        Returns:
            Steps ``[K, M]``; :func:`patch_index` returns the patches that they read.
        """
        if self.listener is None or self.select is None:
            return None
        if cls_index is None:
            return self.select(scan_order)
        directions, length = scan_order.shape
        every = torch.arange(length, device=scan_order.device).expand(directions, -1)
        steps_of_patches = every[scan_order != cls_index].view(directions, -1)
        chosen = self.select(patch_index(scan_order, steps_of_patches, cls_index))
        return steps_of_patches.gather(1, chosen)

    def forward(self, feature: DirectionFeature) -> None:
        if self.listener is not None:
            self.listener(feature)

    def extra_repr(self) -> str:
        return f'dim={self.dim}, num_directions={self.num_directions}'
