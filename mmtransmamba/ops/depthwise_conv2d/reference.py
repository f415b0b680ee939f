"""The depthwise convolution as torch's ``conv2d``."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor


def unavailable() -> str | None:
    """Plain torch always runs."""
    return None


def refuses(tensors: Mapping[str, Tensor | None]) -> str | None:
    """Every tensor that passed the checks of the interface is accepted."""
    return None


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
