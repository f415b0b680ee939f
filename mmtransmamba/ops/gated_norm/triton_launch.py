"""Launches of the Triton kernels of the gated norm.

This module imports Triton, and is therefore imported only when the first one runs.
"""

from typing import Any

import torch
import triton
from torch import Tensor

from ..triton_runtime import rows
from . import triton_plan
from .triton_kernels import norm_backward, norm_forward


def forward(
    y: Tensor,
    z: Tensor | None,
    weight: Tensor,
    group: int,
    eps: float,
    gate_first: bool,
    silu: bool,
    out: Tensor,
) -> None:
    """Write the result of ``[M, D]`` to ``out``."""
    y, z = rows(y), None if z is None else rows(z)
    sizes = _sizes(y, z, group, eps, gate_first, silu)
    grid = (triton.cdiv(len(y), sizes['R']), y.shape[-1] // group)
    with torch.cuda.device_of(y):
        norm_forward[grid](
            Y=y, Z=y if z is None else z, W=weight.contiguous(), OUT=out, **sizes
        )


def backward(
    grad: Tensor,
    y: Tensor,
    z: Tensor | None,
    weight: Tensor,
    group: int,
    eps: float,
    gate_first: bool,
    silu: bool,
    dy: Tensor,
    dz: Tensor,
) -> Tensor:
    """Write the gradients of ``y`` and ``z``, and return that of ``weight``."""
    grad, y, z = rows(grad), rows(y), None if z is None else rows(z)
    sizes = _sizes(y, z, group, eps, gate_first, silu)
    groups = y.shape[-1] // group
    tiles = triton.cdiv(len(y), sizes['R'])
    each = triton.cdiv(tiles, min(tiles, max(1, triton_plan.PROGRAMS // groups)))
    programs = triton.cdiv(tiles, each)
    parts = torch.empty(programs, y.shape[-1], dtype=torch.float32, device=y.device)
    with torch.cuda.device_of(y):
        norm_backward[(programs, groups)](
            GRAD=grad,
            Y=y,
            Z=y if z is None else z,
            W=weight.contiguous(),
            DY=dy,
            DZ=dy if z is None else dz,
            PARTS=parts,
            g_m=grad.stride(0),
            tiles=each,
            **sizes,
        )
        return parts.sum(0).to(weight.dtype)


def _sizes(
    y: Tensor, z: Tensor | None, group: int, eps: float, gate_first: bool, silu: bool
) -> dict[str, Any]:
    padded = triton.next_power_of_2(group)
    tokens = max(1, triton_plan.ELEMENTS // padded)
    return dict(
        y_m=y.stride(0),
        z_m=y.stride(0) if z is None else z.stride(0),
        M=len(y),
        D=y.shape[-1],
        G=group,
        eps=eps,
        R=tokens,
        BG=padded,
        HAS_Z=z is not None,
        GATE_FIRST=gate_first,
        SILU=silu,
        num_warps=triton_plan.warps_of(padded),
        # Triton 3.10 no longer fuses a product and a sum automatically.
        enable_fp_fusion=True,
    )
