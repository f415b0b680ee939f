"""One step of the selective scan in plain torch.

Shape suffixes: B batch, D channels, G groups of channels, N states.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..plain_torch import refuses, unavailable

__all__ = ['refuses', 'step', 'unavailable']


def step(
    state_BDN: Tensor,
    u_BD: Tensor,
    delta_BD: Tensor,
    A_DN: Tensor,
    B: Tensor,
    C: Tensor,
    D_D: Tensor | None,
    z_BD: Tensor | None,
    delta_bias_D: Tensor | None,
    delta_softplus: bool,
) -> tuple[Tensor, Tensor]:
    """See ``selective_scan_step``; all tensors have the dtype to compute in."""
    if delta_bias_D is not None:
        delta_BD = delta_BD + delta_bias_D
    if delta_softplus:
        delta_BD = F.softplus(delta_BD)
    B_BDN, C_BDN = (_per_channel(x, u_BD.shape[1]) for x in (B, C))
    decay_BDN = torch.exp(delta_BD[..., None] * A_DN)
    new_BDN = decay_BDN * state_BDN + (delta_BD * u_BD)[..., None] * B_BDN
    y_BD = (new_BDN * C_BDN).sum(-1)
    if D_D is not None:
        y_BD = y_BD + D_D * u_BD
    if z_BD is not None:
        y_BD = y_BD * F.silu(z_BD)
    return y_BD, new_BDN


def _per_channel(x: Tensor, channels: int) -> Tensor:
    """Bring ``B`` or ``C`` to ``[B, D, N]``, or to ``[B, 1, N]``."""
    if x.dim() == 2:
        return x[:, None]
    return x.repeat_interleave(channels // x.shape[1], dim=1)
