"""Memory layout of the operands and results of the WKV's kernels.

Shape suffixes: B batch, S directions (1 if summed), T tokens, C channels.
"""

import torch
from torch import Tensor


def empty_output(
    k_BTC: Tensor, separate: bool, dtype: torch.dtype | None = None
) -> Tensor:
    """Room for the output ``[B, S, T, C]``, in the dtype of the keys by default."""
    batch, length, channels = k_BTC.shape
    return k_BTC.new_empty(batch, 1 + separate, length, channels, dtype=dtype)


def empty_contiguous(x: Tensor) -> Tensor:
    """Room for a tensor of this shape, contiguous."""
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def channels_contiguous(x: Tensor) -> Tensor:
    """A tensor with unit stride over the channels, copied only if needed."""
    return x if x.stride(-1) == 1 else x.contiguous()
