"""One step of SSD in plain torch, with little memory traffic.

Shape suffixes: B batch, H heads, P channels of a head, G groups of heads, N states.
"""

import torch
from torch import Tensor

from ..autocast import without_autocast
from ..plain_torch import refuses, unavailable

__all__ = ['refuses', 'step', 'unavailable']


def step(
    state_BHPN: Tensor,
    x_BHP: Tensor,
    dt_BH: Tensor,
    A_H: Tensor,
    B_BGN: Tensor,
    C_BGN: Tensor,
    D_H: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """See ``ssd_step``; all tensors have the dtype to compute in."""
    heads = x_BHP.shape[1] // B_BGN.shape[1]
    B_BHN, C_BHN = (part.repeat_interleave(heads, dim=1) for part in (B_BGN, C_BGN))
    decay_BH = torch.exp(dt_BH * A_H)
    drive_BHP = dt_BH[..., None] * x_BHP
    # Decoding is memory-bound. This allocates one new tensor of the size of the state,
    # updated in place; the product allocates no tensor of that size.
    new_BHPN = decay_BH[..., None, None] * state_BHPN
    new_BHPN.addcmul_(drive_BHP[..., None], B_BHN[..., None, :])
    with without_autocast(x_BHP.device.type):
        # Row times matrix; matrix times column would take five times as long.
        y_BHP = (C_BHN[..., None, :] @ new_BHPN.mT).squeeze(-2)
    if D_H is not None:
        y_BHP = y_BHP + D_H[:, None] * x_BHP
    return y_BHP, new_BHPN
