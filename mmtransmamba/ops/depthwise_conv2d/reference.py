"""The depthwise convolution as torch's ``conv2d``."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..plain_torch import refuses, unavailable

__all__ = ['convolve', 'refuses', 'unavailable']


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    grid: tuple[int, int],
    silu: bool,
) -> Tensor:
    """See ``depthwise_conv2d``."""
    rows, columns = weight.shape[2:]
    x_BDHW = x.transpose(1, 2).unflatten(2, grid)
    padding = (rows // 2, columns // 2)
    y = F.conv2d(x_BDHW, weight, bias, padding=padding, groups=x.shape[-1])
    return (F.silu(y) if silu else y).flatten(2).transpose(1, 2)
