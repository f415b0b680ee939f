"""The gated delta rule as a loop over the steps: readable, any dtype, any device.

Shape suffixes: B batch, L steps, G heads of q and k, H heads, K key channels, V value
channels; D is K, or 1 for one decay of all key channels.
"""

import torch
from torch import Tensor

from ..plain_torch import refuses, unavailable

__all__ = ['refuses', 'scan', 'unavailable']


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
    state_BHKV = initial_state
    if state_BHKV is None:
        state_BHKV = v.new_zeros(v.shape[0], v.shape[2], q.shape[-1], v.shape[-1])
    repeats = v.shape[2] // q.shape[2]
    g_BLHD = g[..., None] if g.dim() == 3 else g
    outputs = []
    # One unbind per operand: indexing at every step would add a gradient of full length
    # for each step.
    steps = zip(
        *(operand.unbind(1) for operand in (q, k, v, g_BLHD, beta)), strict=True
    )
    for q_BGK, k_BGK, v_BHV, g_BHD, beta_BH in steps:
        q_BHK, k_BHK = (x.repeat_interleave(repeats, dim=1) for x in (q_BGK, k_BGK))
        decayed_BHKV = g_BHD.exp()[..., None] * state_BHKV
        recalled_BHV = (decayed_BHKV * k_BHK[..., None]).sum(-2)
        delta_BHV = beta_BH[..., None] * (v_BHV - recalled_BHV)
        state_BHKV = decayed_BHKV + k_BHK[..., None] * delta_BHV[..., None, :]
        outputs.append((state_BHKV * (scale * q_BHK)[..., None]).sum(-2))
    return torch.stack(outputs, dim=1), state_BHKV
