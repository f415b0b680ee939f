"""Bidirectional WKV on the compiled CPU kernels, as torch custom ops.

Only the inputs are stored for the backward pass, which computes the sums again.

Shape suffixes: B batch, S directions (1 if summed), T tokens, C channels, H heads,
D width of a head.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..native import library
from ..native.library import refuses_place_or_dtype, unavailable
from .layout import channels_contiguous, empty_contiguous, empty_output

__all__ = ['bi_wkv', 'bi_wkv6', 'refuses', 'unavailable']

WARN_WHEN_UNAVAILABLE = True


def refuses(tensors: Mapping[str, Tensor | None]) -> str | None:
    """Why these tensors need another backend, or None."""
    return refuses_place_or_dtype('k', tensors)


def bi_wkv(w: Tensor, u: Tensor, k: Tensor, v: Tensor, separate: bool) -> Tensor:
    """See the reference backend."""
    return _wkv_op(w, u, k, v, separate)


def bi_wkv6(
    r: Tensor, k: Tensor, v: Tensor, decay: Tensor, u: Tensor, separate: bool
) -> Tensor:
    """See the reference backend."""
    y_BSTC = _wkv6_op(r, k, v, decay, u.shape[0], separate)
    r_BTHD, k_BTHD, v_BTHD = (x.unflatten(2, u.shape) for x in (r, k, v))
    own_BTHD = (r_BTHD * u * k_BTHD).sum(-1, keepdim=True) * v_BTHD
    own_BSTC = own_BTHD.flatten(2).unsqueeze(1)
    if separate:  # the backward direction does not see the token itself
        own_BSTC = torch.cat([own_BSTC, torch.zeros_like(own_BSTC)], dim=1)
    return y_BSTC + own_BSTC


# ------------------------------------------------------------------------------ v4

# Schemas are written out because older torch does not infer them from these
# annotations.
_WKV_SCHEMA = 'Tensor w, Tensor u, Tensor k, Tensor v'


def _wkv_args(w: Tensor, u: Tensor, k: Tensor, v: Tensor, y: Tensor) -> Any:
    batch, length, channels = k.shape
    return library.WkvArgs(
        batch=batch,
        length=length,
        channels=channels,
        separate=y.shape[1] == 2,
        w=library.View.of(w),
        u=library.View.of(u),
        k=library.View.of(k),
        v=library.View.of(v),
        y=library.View.of(y),
    )


@torch.library.custom_op(
    'mmtransmamba::bi_wkv',
    mutates_args=(),
    schema=f'({_WKV_SCHEMA}, bool separate) -> Tensor',
)
def _wkv_op(w: Tensor, u: Tensor, k: Tensor, v: Tensor, separate: bool) -> Tensor:
    """Forward kernel: ``[B, S, T, C]``."""
    y = empty_output(k, separate)
    if y.numel():
        library.load().run('wkv', 'forward', _wkv_args(w, u, k, v, y))
    return y


@_wkv_op.register_fake
def _(w: Tensor, u: Tensor, k: Tensor, v: Tensor, separate: bool) -> Tensor:
    return empty_output(k, separate)


@torch.library.custom_op(
    'mmtransmamba::bi_wkv_backward',
    mutates_args=(),
    schema=f'(Tensor grad, {_WKV_SCHEMA}) -> (Tensor, Tensor, Tensor, Tensor)',
)
def _wkv_backward_op(
    grad: Tensor, w: Tensor, u: Tensor, k: Tensor, v: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Backward kernel: the gradients of w, u, k and v."""
    grad_w, grad_u = (w.new_empty(k.shape[0], k.shape[2]) for _ in range(2))
    grad_k, grad_v = empty_contiguous(k), empty_contiguous(v)
    if k.numel():
        args = _wkv_args(w, u, k, v, grad)
        args.grad_w, args.grad_u = library.View.of(grad_w), library.View.of(grad_u)
        args.grad_k, args.grad_v = library.View.of(grad_k), library.View.of(grad_v)
        library.load().run('wkv', 'backward', args)
    # Batch entries are summed here, in the same order for any number of threads.
    return grad_w.sum(0), grad_u.sum(0), grad_k, grad_v


@_wkv_backward_op.register_fake
def _(
    grad: Tensor, w: Tensor, u: Tensor, k: Tensor, v: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grad_w, grad_u = (w.new_empty(k.shape[2]) for _ in range(2))
    return grad_w, grad_u, empty_contiguous(k), empty_contiguous(v)


def _wkv_setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])


def _wkv_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return *_wkv_backward_op(grad, *ctx.saved_tensors), None


_wkv_op.register_autograd(_wkv_backward, setup_context=_wkv_setup_context)


# ------------------------------------------------------------------------------ v6

_WKV6_SCHEMA = 'Tensor r, Tensor k, Tensor v, Tensor decay, int heads'


def _wkv6_args(
    r: Tensor, k: Tensor, v: Tensor, decay: Tensor, heads: int, y: Tensor
) -> Any:
    batch, length, channels = k.shape
    return library.Wkv6Args(
        batch=batch,
        length=length,
        heads=heads,
        width=channels // heads,
        separate=y.shape[1] == 2,
        r=library.View.of(r),
        k=library.View.of(k),
        v=library.View.of(v),
        decay=library.View.of(decay),
        y=library.View.of(y),
    )


@torch.library.custom_op(
    'mmtransmamba::bi_wkv6',
    mutates_args=(),
    schema=f'({_WKV6_SCHEMA}, bool separate) -> Tensor',
)
def _wkv6_op(
    r: Tensor, k: Tensor, v: Tensor, decay: Tensor, heads: int, separate: bool
) -> Tensor:
    """Forward kernel, without the bonus of the token itself: ``[B, S, T, C]``."""
    y = empty_output(k, separate)
    if y.numel():
        operands = [channels_contiguous(x) for x in (r, k, v, decay)]
        args = _wkv6_args(*operands, heads, y)
        library.load().run('wkv6', 'forward', args)
    return y


@_wkv6_op.register_fake
def _(
    r: Tensor, k: Tensor, v: Tensor, decay: Tensor, heads: int, separate: bool
) -> Tensor:
    return empty_output(k, separate)


@torch.library.custom_op(
    'mmtransmamba::bi_wkv6_backward',
    mutates_args=(),
    schema=f'(Tensor grad, {_WKV6_SCHEMA}) -> (Tensor, Tensor, Tensor, Tensor)',
)
def _wkv6_backward_op(
    grad: Tensor, r: Tensor, k: Tensor, v: Tensor, decay: Tensor, heads: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Backward kernel: the gradients of r, k, v and decay."""
    grads = tuple(empty_contiguous(x) for x in (r, k, v, decay))
    if k.numel():
        operands = [channels_contiguous(x) for x in (r, k, v, decay)]
        grad = channels_contiguous(grad)
        args = _wkv6_args(*operands, heads, grad)
        views = [library.View.of(x) for x in grads]
        args.grad_r, args.grad_k, args.grad_v, args.grad_decay = views
        library.load().run('wkv6', 'backward', args)
    return grads


@_wkv6_backward_op.register_fake
def _(
    grad: Tensor, r: Tensor, k: Tensor, v: Tensor, decay: Tensor, heads: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return tuple(empty_contiguous(x) for x in (r, k, v, decay))


def _wkv6_setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.heads = inputs[4]


def _wkv6_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return *_wkv6_backward_op(grad, *ctx.saved_tensors, ctx.heads), None, None


_wkv6_op.register_autograd(_wkv6_backward, setup_context=_wkv6_setup_context)
