"""Contributions of the scan directions to a norm of their sum."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def share_of_norm(
    values: Tensor,
    total: Tensor,
    token_index: Tensor,
    norm: nn.GroupNorm | nn.LayerNorm,
) -> Tensor:
    """Contributions of single directions to the norm of their sum.

    Centring is linear, and the divisor is the deviation of the sum. So the
    contributions add up to the norm without its bias, which belongs to no direction.

    Args:
        values: Directions at chosen tokens, ``[B, K, M, C]``.
        total: Sum of the directions at all tokens, ``[B, L, C]``.
        token_index: The chosen tokens, ``[K, M]``.
        norm: Norm over all channels or over groups of them.
    """
    groups = norm.num_groups if isinstance(norm, nn.GroupNorm) else 1
    dtype = torch.promote_types(values.dtype, torch.float32)
    values, total = (x.to(dtype).unflatten(-1, (groups, -1)) for x in (values, total))
    variance = total.var(-1, correction=0, keepdim=True)
    scale = torch.rsqrt(variance + norm.eps)[:, token_index]
    centred = values - values.mean(-1, keepdim=True)
    return (centred * scale).flatten(-2) * norm.weight
