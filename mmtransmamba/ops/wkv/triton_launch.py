"""Launches of the Triton kernels of ``bi_wkv``.

This module imports Triton, and is therefore imported only when the first WKV runs.

Shape suffixes: B batch, S directions, P pieces of the sequence, T tokens, C channels.
"""

from typing import Any

import torch
import triton
from torch import Tensor

from ..triton_runtime import rows
from . import triton_plan as plan
from .triton_backward import wkv_gradient_totals, wkv_gradients
from .triton_forward import wkv_output
from .triton_totals import wkv_carry, wkv_spread, wkv_totals

# Triton 3.10 no longer fuses a product and a sum automatically.
OPTIONS = dict(num_warps=1, num_stages=1, enable_fp_fusion=True)


def forward(w: Tensor, u: Tensor, k: Tensor, v: Tensor, y_BSTC: Tensor) -> None:
    """Write the output to ``y_BSTC``."""
    k, v = rows(k), rows(v)
    shared = _shared(w, k, v)
    with torch.cuda.device_of(k):
        sums = _sums(k, v, shared)
        wkv_output[_grid(k, shared)](
            **shared,
            U=u.contiguous(),
            K=k,
            V=v,
            SUMS=sums,
            Y=y_BSTC,
            SEPARATE=y_BSTC.shape[1] == 2,
            **OPTIONS,
        )


def backward(
    grad_BSTC: Tensor,
    w: Tensor,
    u: Tensor,
    k: Tensor,
    v: Tensor,
    grad_k: Tensor,
    grad_v: Tensor,
) -> tuple[Tensor, Tensor]:
    """Write the gradients of k and v; return those of w and u ``[C]``."""
    k, v, grad = map(rows, (k, v, grad_BSTC))
    shared = _shared(w, k, v)
    both = grad.shape[1] == 2
    operands = dict(
        U=u.contiguous(),
        K=k,
        V=v,
        GRAD=grad,
        g_b=grad.stride(0),
        g_s=grad.stride(1) if both else 0,
        g_t=grad.stride(2),
    )
    parts = w.new_empty(2, k.shape[0], shared['NS'], k.shape[2])
    with torch.cuda.device_of(k):
        sums = _sums(k, v, shared)
        grad_sums = torch.empty_like(sums)
        wkv_gradient_totals[_grid(k, shared)](
            **shared, **operands, SUMS=sums, GRAD_SUMS=grad_sums, **OPTIONS
        )
        _carry(grad_sums, shared)
        wkv_gradients[_grid(k, shared)](
            **shared,
            **operands,
            SUMS=sums,
            GRAD_SUMS=grad_sums,
            DW=parts[0],
            DU=parts[1],
            DK=grad_k,
            DV=grad_v,
            **OPTIONS,
        )
        return parts[0].sum((0, 1)), parts[1].sum((0, 1))


def _shared(w: Tensor, k: Tensor, v: Tensor) -> dict[str, Any]:
    """Arguments of all kernels that read keys and values."""
    _, length, channels = k.shape
    return dict(
        W=w.contiguous(),
        k_b=k.stride(0),
        k_t=k.stride(1),
        v_b=v.stride(0),
        v_t=v.stride(1),
        C=channels,
        T=length,
        NS=triton.cdiv(length, plan.PIECE),
        BC=plan.WARP,
        PIECE=plan.PIECE,
    )


def _grid(k: Tensor, shared: dict[str, Any]) -> tuple[int]:
    return (k.shape[0] * shared['NS'] * triton.cdiv(k.shape[2], plan.WARP),)


def _sums(k: Tensor, v: Tensor, shared: dict[str, Any]) -> Tensor:
    """The sums before and after every piece, ``[B, 2, P, 4, C]``."""
    sums = torch.empty(
        k.shape[0],
        2,
        shared['NS'],
        4,
        k.shape[2],
        dtype=torch.float32,
        device=k.device,
    )
    wkv_totals[_grid(k, shared)](**shared, K=k, V=v, SUMS=sums, **OPTIONS)
    _carry(sums, shared)
    return sums


def _carry(sums: Tensor, shared: dict[str, Any]) -> None:
    """Replace the sum of every piece by that of the pieces before or after it."""
    batch, _, pieces, _, channels = sums.shape
    blocks = triton.cdiv(channels, plan.WARP)
    group = plan.GROUP if pieces > plan.UNGROUPED else pieces
    groups = triton.cdiv(pieces, group)
    totals = sums.new_empty(batch, 2, groups if groups > 1 else 0, 4, channels)
    common = dict(W=shared['W'], C=channels, T=shared['T'], BC=plan.WARP)
    ways = 2 * batch * blocks
    pieced = dict(NS=pieces, NG=groups, length=shared['PIECE'], group=group, SUMS=sums)
    wkv_carry[(ways * groups,)](
        **common, **pieced, TOTALS=totals, GROUPED=groups > 1, **OPTIONS
    )
    if groups > 1:
        wkv_carry[(ways,)](
            **common,
            SUMS=totals,
            TOTALS=totals,
            NS=groups,
            NG=1,
            length=shared['PIECE'] * group,
            group=groups,
            GROUPED=False,
            **OPTIONS,
        )
        wkv_spread[(ways * pieces,)](**common, **pieced, TOTALS=totals, **OPTIONS)
