"""The operators of ``bi_wkv6`` on Triton kernels, see ``triton``.

Shape suffixes: B batch, S directions (1 if summed), T tokens, C channels, H heads,
D width of a head.
"""

from typing import Any

import torch
from torch import Tensor

from .layout import empty_contiguous, empty_output

_SCHEMA = 'Tensor r, Tensor k, Tensor v, Tensor decay, Tensor u'


def bi_wkv6(
    r: Tensor, k: Tensor, v: Tensor, decay: Tensor, u: Tensor, separate: bool
) -> Tensor:
    """See the reference backend; r, k and v may be in half precision.

    The output is in the dtype of ``k``, or in float32 if ``separate``: the directions
    are still to be added.
    """
    return _wkv6_op(r, k, v, decay, u, separate)


@torch.library.custom_op(
    'mmtransmamba::bi_wkv6_triton',
    mutates_args=(),
    schema=f'({_SCHEMA}, bool separate) -> Tensor',
)
def _wkv6_op(
    r: Tensor, k: Tensor, v: Tensor, decay: Tensor, u: Tensor, separate: bool
) -> Tensor:
    """Forward kernel: ``[B, S, T, C]``."""
    from . import triton_v6_launch

    if not k.numel():
        return empty_output(k, separate, torch.float32 if separate else None)
    y = triton_v6_launch.forward(r, k, v, decay, u)
    return y if separate else y.sum(1, keepdim=True).to(k.dtype)


@_wkv6_op.register_fake
def _(
    r: Tensor, k: Tensor, v: Tensor, decay: Tensor, u: Tensor, separate: bool
) -> Tensor:
    return empty_output(k, separate, torch.float32 if separate else None)


@torch.library.custom_op(
    'mmtransmamba::bi_wkv6_triton_backward',
    mutates_args=(),
    schema=f'(Tensor grad, {_SCHEMA}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)',
)
def _wkv6_backward_op(
    grad: Tensor, r: Tensor, k: Tensor, v: Tensor, decay: Tensor, u: Tensor
) -> tuple[Tensor, ...]:
    """Backward kernels: the gradients of r, k, v, decay and u."""
    from . import triton_v6_launch

    operands = r, k, v, decay, u
    if not k.numel():
        return *map(empty_contiguous, operands[:4]), torch.zeros_like(u)
    grads = triton_v6_launch.backward(grad, *operands)
    summed = (g.sum(1).to(x.dtype) for g, x in zip(grads, operands[:4], strict=False))
    return *summed, grads[-1].sum(0)


@_wkv6_backward_op.register_fake
def _(
    grad: Tensor, r: Tensor, k: Tensor, v: Tensor, decay: Tensor, u: Tensor
) -> tuple[Tensor, ...]:
    return tuple(map(empty_contiguous, (r, k, v, decay, u)))


def _setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:5])


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return *_wkv6_backward_op(grad, *ctx.saved_tensors), None


_wkv6_op.register_autograd(_backward, setup_context=_setup_context)
