"""The public function: check the arguments and choose a backend."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .. import backends
from ..arguments import check_tensors
from . import native, reference

OP = 'depthwise_conv2d'

# An exported file has the operator of the reference, which every runtime knows.
backends.register(OP, {'native': native, 'reference': reference, 'portable': reference})


def depthwise_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    grid: Sequence[int],
    *,
    silu: bool = False,
) -> Tensor:
    """Convolve every channel of a grid of tokens with its own kernel.

    Equals ``conv2d`` of the tokens as a map ``[B, D, H, W]`` with stride 1 and zero
    padding that keeps the size. The native backend reads and writes tokens channels
    last, the layout of linear layers and scans, so that no step needs a transposed
    copy. It computes in float32; the reference has the precision of ``conv2d``, also
    under autocast.

    Args:
        x: Tokens ``[B, H * W, D]`` in raster order, of any strides.
        weight: Kernels ``[D, 1, R, S]`` with odd R and S.
        bias: ``[D]``, or None.
        grid: Rows H and columns W.
        silu: Apply SiLU to the result.

    Returns:
        ``[B, H * W, D]``. Differentiable once on the native backend.

    Raises:
        ValueError: A shape, dtype or device does not fit.
    """
    check_tensors(x=x, weight=weight, bias=bias)
    height, width = grid
    D = x.shape[-1]
    if x.ndim != 3 or x.shape[1] != height * width:
        raise ValueError(
            f'depthwise_conv2d: x has shape {list(x.shape)}; accepted: [B, H * W, D] '
            f'with the grid H, W = {height}, {width}.'
        )
    if (
        weight.ndim != 4
        or weight.shape[:2] != (D, 1)
        or any(size % 2 == 0 for size in weight.shape[2:])
    ):
        raise ValueError(
            f'depthwise_conv2d: weight has shape {list(weight.shape)}; accepted: '
            f'[D, 1, R, S] with D = {D} and odd R, S.'
        )
    if bias is not None and bias.shape != (D,):
        raise ValueError(
            f'depthwise_conv2d: bias has shape {list(bias.shape)}; accepted: '
            f'[D] = [{D}].'
        )
    module = backends.resolve_known(OP, dict(x=x, weight=weight, bias=bias))
    return module.convolve(x, weight, bias, (height, width), silu)
