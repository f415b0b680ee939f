"""The causal convolution on Triton kernels that are compiled when they first run.

See :mod:`mmtransmamba.ops.triton_runtime` for where they run. The input is read in its
own dtype and summed in float32. Differentiable once.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..triton_runtime import refuses_length, refuses_place_or_dtype, unavailable

__all__ = ['convolve', 'refuses', 'unavailable']

TAKES_HALF_PRECISION = True
MAX_WIDTH = 8
"""Taps are unrolled."""


def refuses(tensors: Mapping[str, Tensor | None]) -> str | None:
    """Why these tensors need another backend, or None."""
    reason = refuses_place_or_dtype('x', tensors)
    if reason is not None:
        return reason
    width = tensors['weight'].shape[-1]
    if width > MAX_WIDTH:
        return f'it takes at most {MAX_WIDTH} taps, weight has {width}'
    return refuses_length('x', tensors['x'], 31)


def convolve(
    x: Tensor, taps: Tensor, bias: Tensor, reverse: list[int], silu: bool
) -> Tensor:
    """See the reference backend; ``x`` may be in half precision."""
    return _conv_op(x, taps, bias, reverse, silu)


_SCHEMA = 'Tensor x, Tensor taps, Tensor bias, int[] reverse, bool silu'


def _flags(reverse: list[int], x: Tensor) -> Tensor:
    return torch.tensor(reverse, dtype=torch.int32, device=x.device)


@torch.library.custom_op(
    'mmtransmamba::causal_conv1d_triton',
    mutates_args=(),
    schema=f'({_SCHEMA}) -> Tensor',
)
def _conv_op(
    x: Tensor, taps: Tensor, bias: Tensor, reverse: list[int], silu: bool
) -> Tensor:
    """Forward kernel: ``[K, B, L, D]``."""
    from . import triton_launch

    if not x.numel():
        return x.new_empty(len(reverse), *x.shape)
    return triton_launch.forward(x, taps, bias, _flags(reverse, x), silu)


@_conv_op.register_fake
def _(x: Tensor, taps: Tensor, bias: Tensor, reverse: list[int], silu: bool) -> Tensor:
    return x.new_empty(len(reverse), *x.shape)


@torch.library.custom_op(
    'mmtransmamba::causal_conv1d_triton_backward',
    mutates_args=(),
    schema=f'(Tensor grad, {_SCHEMA}) -> (Tensor, Tensor, Tensor)',
)
def _conv_backward_op(
    grad: Tensor,
    x: Tensor,
    taps: Tensor,
    bias: Tensor,
    reverse: list[int],
    silu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Backward kernels: the gradients of x, taps and bias."""
    from . import triton_launch

    if not x.numel():
        return x.new_empty(x.shape), torch.zeros_like(taps), torch.zeros_like(bias)
    return triton_launch.backward(grad, x, taps, bias, _flags(reverse, x), silu)


@_conv_backward_op.register_fake
def _(
    grad: Tensor,
    x: Tensor,
    taps: Tensor,
    bias: Tensor,
    reverse: list[int],
    silu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return tuple(y.new_empty(y.shape) for y in (x, taps, bias))


def _setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
    *tensors, ctx.reverse, ctx.silu = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    grads = _conv_backward_op(grad, *ctx.saved_tensors, ctx.reverse, ctx.silu)
    return *grads, None, None


_conv_op.register_autograd(_backward, setup_context=_setup_context)
