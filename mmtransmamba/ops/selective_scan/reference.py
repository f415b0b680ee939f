"""The selective scan in plain torch: readable, any float dtype, any device.

Shape suffixes: B batch, K directions, D channels, G groups of channels, N states,
L steps, M tapped steps.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ..plain_torch import refuses, unavailable

__all__ = ['directions_by_gather', 'refuses', 'scan', 'scan_directions', 'unavailable']


def scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> tuple[Tensor, Tensor]:
    """Discretise, scan step by step and read out; see ``selective_scan_fn``.

    Returns:
        tuple[Tensor, Tensor]: Output ``[B, D, L]`` and last state ``[B, D, N]``.
    """
    if delta_bias is not None:
        delta = delta + delta_bias[:, None]
    if delta_softplus:
        delta = F.softplus(delta)
    B_BDNL, C_BDNL = (_per_channel(x, u.shape[1]) for x in (B, C))
    decay_BDNL = torch.exp(delta[:, :, None] * A[:, :, None])
    drive_BDNL = (delta * u)[:, :, None] * B_BDNL

    state_BDN = u.new_zeros(u.shape[0], *A.shape)
    states = []
    # One unbind instead of indexing per step: its gradient is one stack, whereas
    # indexing would add a zero tensor of full length for every step.
    for decay, drive in zip(decay_BDNL.unbind(-1), drive_BDNL.unbind(-1), strict=True):
        state_BDN = decay * state_BDN + drive
        states.append(state_BDN)
    y = (torch.stack(states, dim=-1) * C_BDNL).sum(2)
    if D is not None:
        y = y + D[:, None] * u
    if z is not None:
        y = y * F.silu(z)
    return y, state_BDN


def directions_by_gather(
    scan_fn: Callable[..., tuple[Tensor, Tensor]],
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    order: Tensor,
    permute_params: bool,
    tap_index: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> tuple[Tensor, Tensor | None]:
    """Build the multi-direction scan from a plain one, on permuted copies.

    Args:
        scan_fn (Callable): A plain scan with the signature of :func:`scan`.
        others: As in ``selective_scan_directions``.

    Returns:
        tuple[Tensor, Tensor | None]: Merged output ``[B, D, L]`` and tapped
        outputs ``[B, K, D, M]``.
    """
    merged = torch.zeros_like(u[:, 0])
    taps = []
    for k, path in enumerate(order):

        def read(x: Tensor, dim: int, path: Tensor | None, k: int = k) -> Tensor:
            x = x.select(dim, k if x.shape[dim] > 1 else 0)
            return x if path is None else x[..., path]

        params_path = path if permute_params else None
        y, _ = scan_fn(
            read(u, 1, path),
            read(delta, 1, params_path),
            read(A, 0, None),
            read(B, 1, params_path),
            read(C, 1, params_path),
            None if D is None else read(D, 0, None),
            None,
            None if delta_bias is None else read(delta_bias, 0, None),
            delta_softplus,
        )
        merged = merged.index_add(-1, path, y)
        if tap_index is not None:
            taps.append(y[..., tap_index[k]])
    return merged, torch.stack(taps, dim=1) if taps else None


def _per_channel(x: Tensor, channels: int) -> Tensor:
    """Bring ``B`` or ``C`` to ``[B, D, N, L]``, or to a shape that broadcasts to it."""
    if x.dim() == 2:
        return x[None, :, :, None]
    if x.dim() == 3:
        return x[:, None]
    return x.repeat_interleave(channels // x.shape[1], dim=1)


scan_directions = partial(directions_by_gather, scan)
"""Scan permuted copies one by one; see ``selective_scan_directions``."""
