"""The causal convolution as a sum of shifted products, in torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..plain_torch import refuses, unavailable

__all__ = ['convolve', 'refuses', 'unavailable']


def convolve(
    x: Tensor, taps: Tensor, bias: Tensor, reverse: list[int], silu: bool
) -> Tensor:
    """See ``causal_conv1d``.

    Args:
        x: ``[B, L, D]``.
        taps: ``[W, K, D]``, the current step first, contiguous.
        bias: ``[K, D]``.
        reverse: For each direction, 1 if it runs from the last step to the first.
        silu: Whether SiLU follows.

    Returns:
        ``[K, B, L, D]``.
    """
    y = _conv_op(x, taps, bias, reverse)
    return F.silu(y) if silu else y


def _later(x: Tensor, lag: int) -> Tensor:
    """The steps from ``lag`` to the end."""
    return x.narrow(1, lag, x.shape[1] - lag)


def _earlier(x: Tensor, lag: int) -> Tensor:
    """The steps from the start to ``lag`` before the end."""
    return x.narrow(1, 0, x.shape[1] - lag)


def _ends(reverse: bool) -> tuple[Callable, Callable]:
    """The output steps that exist at a lag, and the input steps that they read."""
    return (_earlier, _later) if reverse else (_later, _earlier)


# A custom op rather than an autograd function: torch.jit and torch.export can save it.
# Directions are integers, because torch.jit does not record lists of booleans. The
# schema is written out because older torch does not infer it from annotations.
@torch.library.custom_op(
    'mmtransmamba::causal_conv1d',
    mutates_args=(),
    schema='(Tensor x, Tensor taps, Tensor bias, int[] reverse) -> Tensor',
)
def _conv_op(x: Tensor, taps: Tensor, bias: Tensor, reverse: list[int]) -> Tensor:
    """The sum of shifted products; ``taps`` are ``[W, K, D]``, the current step
    first."""
    y = x.new_empty(len(reverse), *x.shape)
    y.copy_(bias[:, None, None])
    for k, backwards in enumerate(reverse):
        for lag, tap in enumerate(taps[: x.shape[1], k]):
            output, source = _ends(backwards)
            output(y[k], lag).addcmul_(source(x, lag), tap)
    return y


@_conv_op.register_fake
def _(x: Tensor, taps: Tensor, bias: Tensor, reverse: list[int]) -> Tensor:
    return x.new_empty(len(reverse), *x.shape)


def _setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, taps, _, ctx.reverse = inputs
    ctx.save_for_backward(x, taps)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Gradient made of ordinary operators, so that it is differentiable itself."""
    x, taps = ctx.saved_tensors
    grad_x = torch.zeros(x.shape, dtype=x.dtype, device=x.device)
    grad_taps = torch.zeros_like(taps)
    for k, backwards in enumerate(ctx.reverse):
        for lag, tap in enumerate(taps[: x.shape[1], k]):
            output, source = _ends(backwards)
            grad_y = output(grad[k], lag)
            source(grad_x, lag).addcmul_(grad_y, tap)
            grad_taps[lag, k] = (grad_y * source(x, lag)).sum((0, 1))
    return grad_x, grad_taps, grad.sum((1, 2)), None


_conv_op.register_autograd(_backward, setup_context=_setup_context)
