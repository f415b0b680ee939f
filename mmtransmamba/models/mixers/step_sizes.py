"""Mamba's initialisation of the step size bias."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Step sizes dt at initialisation, for an input of zero.
DT_RANGE = (1e-3, 1e-1)


@torch.no_grad()
def init_step_sizes(bias: Tensor) -> None:
    """Fill ``bias`` so that its softplus is log-uniform in :data:`DT_RANGE`."""
    dt = torch.empty_like(bias).uniform_(*map(math.log, DT_RANGE)).exp()
    bias.copy_(dt + torch.log(-torch.expm1(-dt)))
