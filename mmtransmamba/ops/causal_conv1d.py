"""Depthwise causal convolution over a sequence, in one or several directions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import backends


def causal_conv1d(
    x: Tensor, weight: Tensor, bias: Tensor | None, reverse: Sequence[bool]
) -> Tensor:
    r"""Convolve every channel with a short causal kernel.

    .. math:: y_{k,t} = b_k + \sum_{j=0}^{W-1} w_{k,W-1-j} \, x_{t-j}

    with zeros before the first step. The last tap applies to the current step, as in
    ``causal_conv1d`` and in Mamba's ``conv1d``. A reversed direction sees only the
    current and later steps, :math:`x_{t+j}`. This equals flipping the sequence,
    convolving and flipping back, without moving anything in memory.

    Channels are last, the layout that linear layers produce and that suits the native
    scan best. A depthwise kernel of four taps is a sum of four shifted products. In
    this form, with a hand-written gradient, forward and backward take a third of the
    time of ``F.conv1d`` on a CPU, whose weight gradient is slow.
    Half precision inputs are computed in float32.

    Args:
        x: ``[B, L, D]``.
        weight: Kernels of K directions, ``[K, D, W]``.
        bias: ``[K, D]``, or None.
        reverse: For each direction, whether it runs from the last step to the first.

    Returns:
        ``[K, B, L, D]`` in the dtype of ``x``, contiguous and twice differentiable.

    Raises:
        ValueError: A shape does not fit.
    """
    K, D = len(reverse), x.shape[-1]
    if x.ndim != 3 or weight.ndim != 3 or weight.shape[:2] != (K, D):
        raise ValueError(
            f'causal_conv1d: x has shape {list(x.shape)} and weight '
            f'{list(weight.shape)}; accepted: [B, L, D] and [K, D, W] with '
            f'K = {K} directions (reverse).'
        )
    if bias is None:
        bias = weight.new_zeros(K, D)
    elif bias.shape != (K, D):
        raise ValueError(
            f'causal_conv1d: bias has shape {list(bias.shape)}; accepted: '
            f'[K, D] = [{K}, {D}].'
        )
    dtype = torch.promote_types(x.dtype, torch.float32)
    if backends.asked_for('portable'):
        y = _by_conv1d(x.to(dtype), weight.to(dtype), bias.to(dtype), reverse)
        return y.to(x.dtype)
    # Taps first and channels contiguous, so that every product is vectorised.
    taps = weight.to(dtype).permute(2, 0, 1).flip(0).contiguous()
    y = _conv_op(x.to(dtype), taps, bias.to(dtype), [int(r) for r in reverse])
    return y.to(x.dtype)


def _by_conv1d(
    x: Tensor, weight: Tensor, bias: Tensor, reverse: Sequence[bool]
) -> Tensor:
    """The same convolution with the one operator that every runtime has."""
    x_BDL, before = x.transpose(1, 2), weight.shape[-1] - 1
    outputs = []
    for k, backwards in enumerate(reverse):
        padded = F.pad(x_BDL, (0, before) if backwards else (before, 0))
        kernel = weight[k].flip(1) if backwards else weight[k]
        y = F.conv1d(padded, kernel.unsqueeze(1), bias[k], groups=x.shape[-1])
        outputs.append(y.transpose(1, 2))
    return torch.stack(outputs)


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
