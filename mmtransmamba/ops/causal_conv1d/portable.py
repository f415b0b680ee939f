"""The causal convolution for exported files, with the operator every runtime has.

Used only on request: ``use_backend('portable')``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..plain_torch import refuses, unavailable

__all__ = ['convolve', 'refuses', 'unavailable']


def convolve(
    x: Tensor, taps: Tensor, bias: Tensor, reverse: list[int], silu: bool
) -> Tensor:
    """See the reference backend."""
    x_BDL, before = x.transpose(1, 2), len(taps) - 1
    outputs = []
    for k, backwards in enumerate(reverse):
        padded = F.pad(x_BDL, (0, before) if backwards else (before, 0))
        # A kernel of F.conv1d has the last step last.
        kernel = taps[:, k] if backwards else taps[:, k].flip(0)
        y = F.conv1d(padded, kernel.t().unsqueeze(1), bias[k], groups=x.shape[-1])
        outputs.append(y.transpose(1, 2))
    y = torch.stack(outputs)
    return F.silu(y) if silu else y
