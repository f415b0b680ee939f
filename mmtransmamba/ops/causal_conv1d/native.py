"""The causal convolution on the compiled CPU kernels: a grid of one row."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..native.depthwise import depthwise
from ..native.library import refuses_place_or_dtype, unavailable

__all__ = ['convolve', 'refuses', 'unavailable']


def refuses(tensors: Mapping[str, Tensor | None]) -> str | None:
    """Why these tensors need another backend, or None."""
    return refuses_place_or_dtype('x', tensors)


def convolve(
    x: Tensor, taps: Tensor, bias: Tensor, reverse: list[int], silu: bool
) -> Tensor:
    """See the reference backend."""
    before = taps.shape[0] - 1
    return depthwise(
        x,
        taps.transpose(0, 1).unsqueeze(1),
        bias,
        1,
        0,
        # The taps start at the current step and go back, or forward if reversed.
        [0 if backwards else -before for backwards in reverse],
        [0 if backwards else 1 for backwards in reverse],
        silu,
    )
