"""Bidirectional WKV on Triton kernels that are compiled when they first run.

See :mod:`mmtransmamba.ops.triton_runtime` for where they run. Keys and values are read
in their own dtype; the sums are float32. Only the inputs are stored for the backward
pass, which computes the sums again.

Shape suffixes: B batch, S directions (1 if summed), T tokens, C channels.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..triton_runtime import refuses_length, refuses_place_or_dtype, unavailable
from . import triton_plan as plan
from .layout import empty_contiguous, empty_output
from .triton_v6 import bi_wkv6

__all__ = ['bi_wkv', 'bi_wkv6', 'refuses', 'unavailable']

TAKES_HALF_PRECISION = True


def refuses(tensors: Mapping[str, Tensor | None]) -> str | None:
    """Why these tensors need another backend, or None."""
    reason = refuses_place_or_dtype('k', tensors)
    if reason is not None:
        return reason
    if 'r' in tensors and tensors['u'].shape[1] > plan.MAX_WIDTH:
        return (
            f'it takes heads of at most {plan.MAX_WIDTH} channels, '
            f'u has {tensors["u"].shape[1]}'
        )
    return refuses_length('k', tensors['k'], 29)


def bi_wkv(w: Tensor, u: Tensor, k: Tensor, v: Tensor, separate: bool) -> Tensor:
    """See the reference backend; keys and values may be in half precision.

    The output is in the dtype of ``k``, or in float32 if ``separate``: the directions
    are still to be added.
    """
    return _wkv_op(w, u, k, v, separate)


_SCHEMA = 'Tensor w, Tensor u, Tensor k, Tensor v'


@torch.library.custom_op(
    'mmtransmamba::bi_wkv_triton',
    mutates_args=(),
    schema=f'({_SCHEMA}, bool separate) -> Tensor',
)
def _wkv_op(w: Tensor, u: Tensor, k: Tensor, v: Tensor, separate: bool) -> Tensor:
    """Forward kernels: ``[B, S, T, C]``."""
    from . import triton_launch

    y = empty_output(k, separate, torch.float32 if separate else None)
    if y.numel():
        triton_launch.forward(w, u, k, v, y)
    return y


@_wkv_op.register_fake
def _(w: Tensor, u: Tensor, k: Tensor, v: Tensor, separate: bool) -> Tensor:
    return empty_output(k, separate, torch.float32 if separate else None)


@torch.library.custom_op(
    'mmtransmamba::bi_wkv_triton_backward',
    mutates_args=(),
    schema=f'(Tensor grad, {_SCHEMA}) -> (Tensor, Tensor, Tensor, Tensor)',
)
def _wkv_backward_op(
    grad: Tensor, w: Tensor, u: Tensor, k: Tensor, v: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Backward kernels: the gradients of w, u, k and v."""
    from . import triton_launch

    grad_k, grad_v = empty_contiguous(k), empty_contiguous(v)
    if not k.numel():
        return torch.zeros_like(w), torch.zeros_like(u), grad_k, grad_v
    grad_w, grad_u = triton_launch.backward(grad, w, u, k, v, grad_k, grad_v)
    return grad_w, grad_u, grad_k, grad_v


@_wkv_backward_op.register_fake
def _(
    grad: Tensor, w: Tensor, u: Tensor, k: Tensor, v: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grad_w, grad_u = (x.new_empty(x.shape) for x in (w, u))
    return grad_w, grad_u, empty_contiguous(k), empty_contiguous(v)


def _setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return *_wkv_backward_op(grad, *ctx.saved_tensors), None


_wkv_op.register_autograd(_backward, setup_context=_setup_context)
