"""The gated norm in plain torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..plain_torch import refuses, unavailable

__all__ = ['normalize', 'refuses', 'unavailable']


def normalize(
    y: Tensor,
    z: Tensor | None,
    weight: Tensor,
    group: int,
    eps: float,
    gate_first: bool,
    activation: str,
    dtype: torch.dtype,
) -> Tensor:
    """See ``gated_norm``."""
    wide = torch.promote_types(y.dtype, torch.float32)
    y, gate = y.to(wide), None
    if z is not None:
        gate = F.silu(z.to(wide)) if activation == 'silu' else z.to(wide).sigmoid()
    if gate is not None and gate_first:
        y = y * gate
    parts = y.unflatten(-1, (-1, group))
    scales = torch.rsqrt(parts.square().mean(-1, keepdim=True) + eps)
    y = (parts * scales).flatten(-2) * weight.to(wide)
    if gate is not None and not gate_first:
        y = y * gate
    return y.to(dtype)
