"""The depthwise convolution on the compiled CPU kernels.

Only the inputs are stored for the backward pass, which computes the values before
SiLU again.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..native.depthwise import depthwise
from ..native.library import refuses_place_or_dtype, unavailable
from ..untraced import plain_size

__all__ = ['convolve', 'refuses', 'unavailable']


def refuses(tensors: Mapping[str, Tensor | None]) -> str | None:
    """Why these tensors need another backend, or None."""
    return refuses_place_or_dtype('x', tensors)


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    grid: tuple[int, int],
    silu: bool,
) -> Tensor:
    """See ``depthwise_conv2d``."""
    rows, columns = weight.shape[2:]
    y = depthwise(
        x.float(),
        weight.float().permute(1, 2, 3, 0),
        None if bias is None else bias.float().unsqueeze(0),
        plain_size(grid[0]),
        -(rows // 2),
        [-(columns // 2)],
        [0],
        silu,
    )
    return y[0].to(x.dtype)
