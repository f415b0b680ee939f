"""The rule of the published CUDA kernels for exported files, see ``cuda_rule``."""

from __future__ import annotations

from torch import Tensor

from . import cuda_rule
from .portable import past_sums, refuses, unavailable

__all__ = ['bi_wkv', 'refuses', 'unavailable']


def bi_wkv(w: Tensor, u: Tensor, k: Tensor, v: Tensor, separate: bool) -> Tensor:
    """Like ``bi_wkv`` of the reference backend, by the published kernels' rule."""
    return cuda_rule.bi_wkv(w, u, k, v, separate, past_sums)
