"""Launches of the Triton kernels of the causal convolution.

This module imports Triton, and is therefore imported only when the first one runs.
"""

from typing import Any

import torch
import triton
from torch import Tensor

from ..triton_runtime import rows
from . import triton_plan
from .triton_kernels import conv_forward, conv_inputs, conv_weights


def forward(
    x: Tensor, taps: Tensor, bias: Tensor, reverse: Tensor, silu: bool
) -> Tensor:
    """The output ``[K, B, L, D]`` in the dtype of ``x``."""
    x = rows(x)
    batch, length, channels = x.shape
    directions = len(reverse)
    y = x.new_empty(directions, batch, length, channels)
    with torch.cuda.device_of(x):
        sizes = _sizes(x, taps)
        conv_forward[(_programs(x) * directions,)](
            X=x,
            TAPS=taps.contiguous(),
            BIAS=bias.contiguous(),
            REVERSE=reverse,
            Y=y,
            x_b=x.stride(0),
            x_l=x.stride(1),
            B=batch,
            SILU=silu,
            **sizes,
        )
    return y


def backward(
    grad: Tensor, x: Tensor, taps: Tensor, bias: Tensor, reverse: Tensor, silu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of ``x`` (in its dtype), taps ``[W, K, D]`` and bias ``[K, D]``."""
    x, grad, taps = rows(x), rows(grad), taps.contiguous()
    batch, length, channels = x.shape
    width, directions, _ = taps.shape
    tiles = triton.cdiv(length, triton_plan.STEPS)
    float32 = dict(dtype=torch.float32, device=x.device)
    parts = torch.empty(batch, tiles, width + 1, directions, channels, **float32)
    inner = torch.empty(grad.shape if silu else (0,), **float32)
    dx = torch.empty(batch, length, channels, dtype=x.dtype, device=x.device)
    with torch.cuda.device_of(x):
        sizes = _sizes(x, taps)
        conv_weights[(_programs(x) * directions,)](
            X=x,
            TAPS=taps,
            BIAS=bias.contiguous(),
            REVERSE=reverse,
            GRAD=grad,
            INNER=inner,
            PARTS=parts,
            x_b=x.stride(0),
            x_l=x.stride(1),
            **_strides(grad),
            B=batch,
            SILU=silu,
            **sizes,
        )
        inner = inner if silu else grad
        conv_inputs[(_programs(x),)](
            TAPS=taps, REVERSE=reverse, GRAD=inner, DX=dx, **_strides(inner), **sizes
        )
        return dx, parts[:, :, :width].sum((0, 1)), parts[:, :, width].sum((0, 1))


def _programs(x: Tensor) -> int:
    batch, length, channels = x.shape
    return (
        batch
        * triton.cdiv(length, triton_plan.STEPS)
        * triton.cdiv(channels, triton_plan.CHANNELS)
    )


def _sizes(x: Tensor, taps: Tensor) -> dict[str, Any]:
    width, directions, channels = taps.shape
    length = x.shape[1]
    return dict(
        L=length,
        D=channels,
        tiles=triton.cdiv(length, triton_plan.STEPS),
        K=directions,
        W=width,
        TT=triton_plan.STEPS,
        BD=triton_plan.CHANNELS,
        num_warps=4,
        # Triton 3.10 no longer fuses a product and a sum automatically.
        enable_fp_fusion=True,
    )


def _strides(grad: Tensor) -> dict[str, int]:
    return dict(g_k=grad.stride(0), g_b=grad.stride(1), g_l=grad.stride(2))
