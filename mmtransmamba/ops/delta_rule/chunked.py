"""The gated delta rule in chunks of steps, in plain torch: matrix products, any device.

With the decays :math:`e_i` from the start of a chunk to step i, the errors that a chunk
writes into its state solve a unit lower triangular system (the WY representation,
arXiv:2412.06464, section 3.3; per channel arXiv:2510.26692, section 3):

.. math::
    (I + \\mathrm{diag}(\\beta) \\, M) D = \\mathrm{diag}(\\beta) (V - (e \\odot K) S),
    \\quad M_{ij} = k_i^\\top (e_i / e_j \\odot k_j), \\; j < i

Shape suffixes: B batch, C chunks, Q steps of a chunk, H heads, K key channels, V value
channels; D is K, or 1 for one decay of all key channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..autocast import without_autocast
from ..plain_torch import refuses, unavailable

__all__ = ['CHANNEL_CHUNK', 'CHUNK', 'STRONGEST', 'refuses', 'scan', 'unavailable']

CHUNK = 64
CHANNEL_CHUNK = 16
"""Shorter with a decay per channel, because then the decays between all pairs of steps
take memory in proportion to it, times K."""
STRONGEST = -1e5
"""Logarithm of the strongest decay of one step, which is 0 in every dtype."""


def scan(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """See ``gated_delta_rule`` and ``kda``; returns the output and the last state."""
    with without_autocast(v.device.type):
        return _scan(q, k, v, g, beta, initial_state, scale)


def _scan(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    length, heads = v.shape[1:3]
    chunk = min(CHUNK if g.dim() == 3 else CHANNEL_CHUNK, length)
    repeats = heads // q.shape[2]
    q, k = (x.repeat_interleave(repeats, dim=2) for x in (scale * q, k))
    q_BCHQK, k_BCHQK, v_BCHQV = (_chunks(x, chunk) for x in (q, k, v))
    beta_BCHQ1 = _chunks(beta[..., None], chunk)
    # Decays are exponentials of differences of this sum. After a strong decay, a weak
    # one would be lost in rounding, hence float64; infinity minus infinity would give
    # NaN.
    log_decay = g.to(torch.float64).clamp(min=STRONGEST)
    log_decay = log_decay[..., None] if g.dim() == 3 else log_decay
    sum_BCHQD = _chunks(log_decay, chunk).cumsum(-2)
    total_BCH1D = sum_BCHQD[..., -1:, :]
    from_start_BCHQD = _exp(sum_BCHQD, v.dtype)
    to_end_BCHQD = _exp(total_BCH1D - sum_BCHQD, v.dtype)
    total_BCHD1 = _exp(total_BCH1D, v.dtype).mT

    # Within the chunk: the errors of the steps, in terms of the state before it.
    between = _decay_between(sum_BCHQD, v.dtype)
    strict_BCHQQ = (beta_BCHQ1 * _products(k_BCHQK, k_BCHQK, between)).tril(-1)
    attention_BCHQQ = _products(q_BCHQK, k_BCHQK, between)
    system_BCHQQ = strict_BCHQQ + torch.eye(chunk, dtype=v.dtype, device=v.device)
    right = beta_BCHQ1 * torch.cat((v_BCHQV, from_start_BCHQD * k_BCHQK), dim=-1)
    solved = torch.linalg.solve_triangular(
        system_BCHQQ, right, upper=False, unitriangular=True
    )
    own_BCHQV, recall_BCHQK = solved.split((v.shape[-1], k.shape[-1]), dim=-1)

    state_BHKV = initial_state
    if state_BHKV is None:
        state_BHKV = v.new_zeros(v.shape[0], heads, q.shape[-1], v.shape[-1])
    outputs = []
    for own, recall, read, attention, key, decay in zip(
        own_BCHQV.unbind(1),
        recall_BCHQK.unbind(1),
        (from_start_BCHQD * q_BCHQK).unbind(1),
        attention_BCHQQ.unbind(1),
        (to_end_BCHQD * k_BCHQK).mT.unbind(1),
        total_BCHD1.unbind(1),
        strict=True,
    ):
        error_BHQV = own - recall @ state_BHKV
        outputs.append(read @ state_BHKV + attention @ error_BHQV)
        state_BHKV = decay * state_BHKV + key @ error_BHQV
    y = torch.stack(outputs, dim=1).transpose(2, 3).flatten(1, 2)[:, :length]
    return y, state_BHKV


def _chunks(x_BLH: Tensor, chunk: int) -> Tensor:
    """Pad the steps with zeros and split them into chunks: ``[B, L, H, ...]`` to
    ``[B, C, H, Q, ...]``.

    A step with log decay zero and strength zero does not change the state, and
    padding consists of such steps.
    """
    x_BLH = F.pad(x_BLH, (0, 0, 0, 0, 0, -x_BLH.shape[1] % chunk))
    return x_BLH.unflatten(1, (-1, chunk)).transpose(2, 3)


def _decay_between(sum_QD: Tensor, dtype: torch.dtype) -> Tensor:
    """Decay ``[..., Q, Q, D]`` from the second step to the first, 0 for later ones.

    The mask is applied before the exponential: for later steps the exponential would
    grow instead of decay, and the gradient would be infinity times zero.
    """
    length = sum_QD.shape[-2]
    later = torch.ones(length, length, dtype=torch.bool, device=sum_QD.device).triu(1)
    between_QQD = (sum_QD[..., :, None, :] - sum_QD[..., None, :, :]).to(dtype)
    return between_QQD.masked_fill(later[..., None], -torch.inf).exp()


def _products(left_QK: Tensor, right_QK: Tensor, between_QQD: Tensor) -> Tensor:
    """Products ``[..., Q, Q]`` of two steps' vectors, decayed between the steps."""
    if between_QQD.shape[-1] == 1:
        return (left_QK @ right_QK.mT) * between_QQD.squeeze(-1)
    return torch.einsum('...ik,...jk,...ijk->...ij', left_QK, right_QK, between_QQD)


def _exp(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.to(dtype).exp()
