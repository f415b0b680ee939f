"""Launches of the Triton kernels of ``bi_wkv6``.

This module imports Triton, and is therefore imported only when the first WKV runs.

Shape suffixes: B batch, S directions, T tokens, C channels, H heads, D width of a head.
"""

import math
from typing import Any

import torch
import triton
from torch import Tensor

from ..triton_runtime import rows
from . import triton_plan as plan
from .triton_launch import OPTIONS
from .triton_v6_rows import wkv6_rows
from .triton_v6_walk import wkv6_walk


def forward(r: Tensor, k: Tensor, v: Tensor, decay: Tensor, u: Tensor) -> Tensor:
    """Output of either direction ``[B, 2, T, C]`` in float32."""
    return _walk(r, k, decay, v[:, None], u, backwards=False)


def backward(
    grad_BSTC: Tensor, r: Tensor, k: Tensor, v: Tensor, decay: Tensor, u: Tensor
) -> list[Tensor]:
    """Gradients of r, k, v and decay ``[B, 2, T, C]`` by direction; of u ``[B, H, D]``.

    All are in float32.
    """
    grad_v = _walk(k, r, decay, grad_BSTC, u, backwards=True)
    r, k, v, decay, grad = map(rows, (r, k, v, decay, grad_BSTC))
    batch, length, channels = k.shape
    sizes = _sizes(u)
    tile = plan.TILE
    chunk = tile * math.isqrt(triton.cdiv(length, tile))
    chunks = triton.cdiv(length, chunk)
    grid = _grid(k, u)
    float32 = dict(dtype=torch.float32, device=k.device)
    scratch = torch.empty(
        grid[0], chunks + chunk // tile + 1, sizes['NP'], plan.WARP, **float32
    )
    grad_r, grad_k, grad_decay = (torch.empty_like(grad_v) for _ in range(3))
    grad_u = torch.empty(batch, *u.shape, **float32)
    with torch.cuda.device_of(k):
        wkv6_rows[grid](
            R=r,
            K=k,
            A=decay,
            V=v,
            GRAD=grad,
            BONUS=u.contiguous(),
            SCRATCH=scratch,
            DR=grad_r,
            DK=grad_k,
            DA=grad_decay,
            DU=grad_u,
            **_strides(r=r, k=k, a=decay, v=v),
            g_b=grad.stride(0),
            g_s=grad.stride(1) if grad.shape[1] == 2 else 0,
            g_t=grad.stride(2),
            C=channels,
            T=length,
            NC=chunks,
            chunk=chunk,
            **sizes,
            NV=min(plan.COLUMNS, sizes['NP']),
            TILE=tile,
            **OPTIONS,
        )
    return [grad_r, grad_k, grad_v, grad_decay, grad_u]


def _walk(
    q: Tensor, p: Tensor, decay: Tensor, x_BSTC: Tensor, u: Tensor, backwards: bool
) -> Tensor:
    q, p, decay, x = map(rows, (q, p, decay, x_BSTC))
    batch, length, channels = q.shape
    out = torch.empty(batch, 2, length, channels, dtype=torch.float32, device=q.device)
    with torch.cuda.device_of(q):
        wkv6_walk[_grid(q, u)](
            Q=q,
            P=p,
            A=decay,
            X=x,
            BONUS=u.contiguous(),
            OUT=out,
            **_strides(q=q, p=p, a=decay),
            x_b=x.stride(0),
            x_s=x.stride(1) if x.shape[1] == 2 else 0,
            x_t=x.stride(2),
            C=channels,
            T=length,
            **_sizes(u),
            BACKWARDS=backwards,
            **OPTIONS,
        )
    return out


def _grid(x: Tensor, u: Tensor) -> tuple[int]:
    heads, width = u.shape
    return (2 * x.shape[0] * heads * triton.cdiv(width, plan.WARP),)


def _sizes(u: Tensor) -> dict[str, Any]:
    width = u.shape[1]
    padded = triton.next_power_of_2(width)
    return dict(D=width, NP=padded, NR=min(plan.ROWS, padded), BC=plan.WARP)


def _strides(**tensors: Tensor) -> dict[str, int]:
    found = {}
    for name, x in tensors.items():
        found |= {f'{name}_b': x.stride(0), f'{name}_t': x.stride(1)}
    return found
