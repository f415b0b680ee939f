"""SSD as a matrix: the product of decays, inputs and outputs of all pairs of steps."""

from __future__ import annotations

import torch
from torch import Tensor


def ssd_matrix(dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    r"""The matrix of each head with :math:`y_t = \sum_s M_{ts} x_s`, without D.

    .. math::
        M_{ts} = C_t^T B_s \, e^{\sum_{r=s+1}^{t} dt_r A} \, dt_s \quad (s \le t)

    (arXiv:2405.21060, Eq. 16). Memory and work grow with the square of the length.

    Args:
        dt: Step sizes ``[B, L, H]``.
        A: ``[H]``, negative.
        B, C: ``[B, L, H, N]``.

    Returns:
        ``[B, H, L, L]``, lower triangular, of the type of ``dt * A``.
    """
    logs_BHL = (dt * A).cumsum(1).transpose(1, 2)
    decays = logs_BHL[..., :, None] - logs_BHL[..., None, :]
    upper = torch.ones_like(decays, dtype=torch.bool).triu(1)
    # Before the exponential: above the diagonal the sums are positive and may overflow.
    decays = decays.masked_fill(upper, -torch.inf).exp()
    products = torch.einsum('bthn,bshn->bhts', C, B)
    return products * decays * dt.transpose(1, 2)[..., None, :]
