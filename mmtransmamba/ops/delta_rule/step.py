"""One step of the gated delta rule in plain torch, with little memory traffic.

Shape suffixes: B batch, G heads of q and k, H heads, K key channels, V value channels;
D is K, or 1 for one decay of all key channels.
"""

from torch import Tensor

from ..autocast import without_autocast


def step(
    state_BHKV: Tensor,
    q_BGK: Tensor,
    k_BGK: Tensor,
    v_BHV: Tensor,
    g: Tensor,
    beta_BH: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """See ``gated_delta_rule_step``; all tensors have the dtype to compute in."""
    repeats = v_BHV.shape[1] // q_BGK.shape[1]
    q_BHK, k_BHK = (x.repeat_interleave(repeats, dim=1) for x in (q_BGK, k_BGK))
    g_BHD = g[..., None] if g.dim() == 2 else g
    decay_BHD1 = g_BHD.exp()[..., None]
    # Decoding is memory-bound. This allocates one new tensor of the size of the state,
    # updated in place; the products allocate no tensor of that size.
    new_BHKV = decay_BHD1 * state_BHKV
    with without_autocast(v_BHV.device.type):
        key_BH1K = (decay_BHD1 * k_BHK[..., None]).mT
        recalled_BHV = (key_BH1K @ state_BHKV).squeeze(-2)
        delta_BHV = beta_BH[..., None] * (v_BHV - recalled_BHV)
        new_BHKV.addcmul_(k_BHK[..., None], delta_BHV[..., None, :])
        y_BHV = ((scale * q_BHK)[..., None, :] @ new_BHKV).squeeze(-2)
    return y_BHV, new_BHKV
