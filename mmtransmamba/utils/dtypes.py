"""Floating-point types."""

from __future__ import annotations

import torch
from torch import Tensor


def floating_dtype(name: str) -> torch.dtype:
    """The floating-point type with a given name, such as ``'bfloat16'``.

    Raises:
        ValueError: The type does not exist.
    """
    named = getattr(torch, name, None)
    if not isinstance(named, torch.dtype) or not named.is_floating_point:
        raise ValueError(f'dtype must be float32, bfloat16 or float16, got {name!r}.')
    return named


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor in float32, or in float64 if that is its type."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
