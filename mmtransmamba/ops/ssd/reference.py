"""SSD as a loop over the steps: readable, any float dtype, any device.

Shape suffixes: B batch, L steps, H heads, P channels of a head, G groups of heads,
N states.
"""

import torch
from torch import Tensor

from ..plain_torch import refuses, unavailable

__all__ = ['refuses', 'scan', 'unavailable']


def scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    initial_state: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """See ``ssd_scan``; returns the output and the last state."""
    state_BHPN = initial_state
    if state_BHPN is None:
        state_BHPN = x.new_zeros(x.shape[0], *x.shape[2:], B.shape[-1])
    outputs = []
    # One unbind per operand: indexing at every step would add a gradient of full length
    # for each step.
    steps = zip(*(operand.unbind(1) for operand in (x, dt, B, C)), strict=True)
    for x_BHP, dt_BH, B_BGN, C_BGN in steps:
        y_BHP, state_BHPN = _step(state_BHPN, x_BHP, dt_BH, A, B_BGN, C_BGN, D)
        outputs.append(y_BHP)
    return torch.stack(outputs, dim=1), state_BHPN


def _step(
    state_BHPN: Tensor,
    x_BHP: Tensor,
    dt_BH: Tensor,
    A_H: Tensor,
    B_BGN: Tensor,
    C_BGN: Tensor,
    D_H: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """One step of the recurrence: the output and the new state."""
    heads = x_BHP.shape[1] // B_BGN.shape[1]
    B_BHN, C_BHN = (part.repeat_interleave(heads, dim=1) for part in (B_BGN, C_BGN))
    decay_BH = torch.exp(dt_BH * A_H)
    drive_BHP = dt_BH[..., None] * x_BHP
    state_BHPN = (
        decay_BH[..., None, None] * state_BHPN
        + drive_BHP[..., None] * B_BHN[..., None, :]
    )
    y_BHP = (state_BHPN * C_BHN[..., None, :]).sum(-1)
    if D_H is not None:
        y_BHP = y_BHP + D_H[:, None] * x_BHP
    return y_BHP, state_BHPN
