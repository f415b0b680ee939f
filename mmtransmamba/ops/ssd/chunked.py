"""SSD in chunks of steps, in plain torch: matrix products, any device.

arXiv:2405.21060, section 6: inside a chunk the scan is a masked attention, and only
the state is carried from chunk to chunk.

Shape suffixes: B batch, C chunks, Q steps of a chunk, G groups, R heads of a group,
P channels of a head, N states.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..autocast import without_autocast
from ..plain_torch import refuses, unavailable

__all__ = ['CHUNK', 'STRONGEST', 'refuses', 'scan', 'unavailable']

CHUNK = 64
STRONGEST = -1e5
"""Logarithm of the strongest decay of one step, which is 0 in every dtype."""


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
    with without_autocast(x.device.type):
        return _scan(x, dt, A, B, C, D, initial_state)


def _scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    initial_state: Tensor | None,
) -> tuple[Tensor, Tensor]:
    length, heads, groups = *x.shape[1:3], B.shape[2]
    by_group = (groups, heads // groups)

    B_BCGQN, C_BCGQN = (_chunks(part).transpose(2, 3) for part in (B, C))
    drive_BCGQRP = _chunks(dt[..., None] * x).unflatten(3, by_group).transpose(2, 3)
    # Decays are exponentials of differences of this sum. After a strong decay, a weak
    # one would be lost in rounding, hence float64; infinity minus infinity would give
    # NaN.
    log_decay = (dt * A).to(torch.float64).clamp(min=STRONGEST).unflatten(2, by_group)
    sum_BCGRQ = _chunks(log_decay).movedim(2, -1).cumsum(-1)

    # Within the chunk: attention, masked by the decay between two steps.
    scores_BCGQQ = C_BCGQN @ B_BCGQN.transpose(-1, -2)
    attention_BCGRQQ = scores_BCGQQ.unsqueeze(3) * _decay_between(sum_BCGRQ, x.dtype)
    y_BCGQRP = (attention_BCGRQQ @ drive_BCGQRP.transpose(3, 4)).transpose(3, 4)

    # The contribution of the chunk to the state, and the state before each chunk.
    total_BCGR = sum_BCGRQ[..., -1]
    to_end_BCGQR = _exp(total_BCGR[..., None] - sum_BCGRQ, x.dtype).transpose(3, 4)
    added_BCGNRP = _by_group(
        B_BCGQN.transpose(-1, -2), to_end_BCGQR[..., None] * drive_BCGQRP
    )
    if initial_state is None:
        state_BGNRP = torch.zeros_like(added_BCGNRP[:, 0])
    else:
        state_BGNRP = initial_state.unflatten(1, by_group).permute(0, 1, 4, 2, 3)
    before = []
    decay_BCG1R1 = _exp(total_BCGR, x.dtype)[:, :, :, None, :, None]
    for decay, added in zip(
        decay_BCG1R1.unbind(1), added_BCGNRP.unbind(1), strict=True
    ):
        before.append(state_BGNRP)
        state_BGNRP = decay * state_BGNRP + added

    from_start_BCGQR = _exp(sum_BCGRQ, x.dtype).transpose(3, 4)
    read_BCGQRP = _by_group(C_BCGQN, torch.stack(before, dim=1))
    y_BCGQRP = y_BCGQRP + from_start_BCGQR[..., None] * read_BCGQRP
    y = y_BCGQRP.transpose(2, 3).flatten(1, 2).flatten(2, 3)[:, :length]
    if D is not None:
        y = y + D[:, None] * x
    last_state = state_BGNRP.permute(0, 1, 3, 4, 2).flatten(1, 2)
    return y, last_state


def _chunks(x_BL: Tensor) -> Tensor:
    """Pad the steps with zeros and split them: ``[B, L, ...]`` to ``[B, C, Q, ...]``.

    A step size of zero does not change the state, and neither does the padding.
    """
    length = x_BL.shape[1]
    chunk = min(CHUNK, length)
    x_BL = F.pad(x_BL, (0, 0) * (x_BL.dim() - 2) + (0, -length % chunk))
    return x_BL.unflatten(1, (x_BL.shape[1] // chunk, chunk))


def _decay_between(sum_Q: Tensor, dtype: torch.dtype) -> Tensor:
    """Decay ``[..., Q, Q]`` from the second step to the first, 0 for later ones.

    The mask is applied before the exponential: for later steps the exponential would
    grow instead of decay, and the gradient would be infinity times zero.
    """
    length = sum_Q.shape[-1]
    later = torch.ones(length, length, dtype=torch.bool, device=sum_Q.device).triu(1)
    between_QQ = (sum_Q[..., :, None] - sum_Q[..., None, :]).to(dtype)
    return between_QQ.masked_fill(later, -torch.inf).exp()


def _exp(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.to(dtype).exp()


def _by_group(left: Tensor, right_RP: Tensor) -> Tensor:
    """Matrix product that treats the channels of all heads of a group as columns."""
    return (left @ right_RP.flatten(-2)).unflatten(-1, right_RP.shape[-2:])
