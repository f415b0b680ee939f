"""Blocks of tensors, and checks whether a source has similar tensors."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from mmtransmamba.models.folders.sources import TensorSource


def others_have(source: TensorSource, name: str) -> bool:
    """Whether other layers have a tensor that a layer lacks.

    Args:
        source: The tensors.
        name: The tensor's name, with the number of its layer.
    """
    before, after = re.match(r'^(.*?layers?\.)\d+(\..*)$', name).groups()
    return any(
        other.startswith(before) and other.endswith(after) and other != name
        for other in source
    )


def block_of(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The top-left block of a given shape."""
    return tensor[tuple(slice(0, size) for size in shape)]


def cat_blocks(tensor: Tensor, parts: list[tuple[int, int]], width: int) -> Tensor:
    """The first rows of the parts stacked along dimension 0, cut to ``width``.

    Args:
        tensor: ``[sum of sizes, C]``.
        parts: Size of each part, and the number of rows taken from it.
        width: Number of columns taken.
    """
    pieces, start = [], 0
    for size, taken in parts:
        pieces.append(tensor[start : start + taken, :width])
        start += size
    return torch.cat(pieces)
