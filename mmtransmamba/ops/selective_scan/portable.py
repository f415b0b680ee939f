"""The selective scan for exported files, as one loop over the steps.

Used only on request: ``use_backend('portable')``. See
:mod:`mmtransmamba.ops.recurrence`.

Shape suffixes: B batch, K directions or groups of channels, D channels, N states,
L steps, M tapped steps. A dimension written 1|K is 1 when all share the operand.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ..recurrence import outer_products
from ..untraced import untraced
from .operator_form import common_groups


def unavailable() -> str | None:
    """Plain torch always runs."""
    return None


def refuses(tensors: Mapping[str, Tensor | None]) -> str | None:
    """Why these tensors need another backend, or None."""
    for name in ('B', 'C'):
        if tensors[name].dim() == 2:
            return f'{name} of shape [D, N], constant over time, is not implemented'
    return None


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
    """See ``selective_scan_fn``; returns the output and the last state."""
    B, C = (x.unsqueeze(1) if x.dim() == 3 else x for x in (B, C))
    groups = common_groups(B.shape[1], C.shape[1])
    B, C = (x.repeat_interleave(groups // x.shape[1], dim=1) for x in (B, C))

    def grouped(x: Tensor | None, dim: int) -> Tensor | None:
        return None if x is None else x.unflatten(dim, (groups, -1))

    delta = _step_sizes(
        delta.unflatten(1, (groups, -1)), grouped(delta_bias, 0), delta_softplus
    )
    u_BKDL = u.unflatten(1, (groups, -1))
    y_BKDL, state_BKDN = _scan(u_BKDL, delta, grouped(A, 0), B, C, grouped(D, 0))
    y = y_BKDL.flatten(1, 2)
    if z is not None:
        y = y * F.silu(z)
    return y, state_BKDN.flatten(1, 2)


def scan_directions(
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
    """See ``selective_scan_directions``."""
    with untraced(order):
        inverse = order.argsort(-1)
    u = _along(u, order)
    delta = _step_sizes(delta, delta_bias, delta_softplus)
    if permute_params:
        delta, B, C = (_along(x, order) for x in (delta, B, C))
    y_BKDL, _ = _scan(u, delta, A, B, C, D)
    taps = None
    if tap_index is not None:
        index = tap_index[None, :, None].expand(u.shape[0], -1, u.shape[2], -1)
        taps = y_BKDL.gather(3, index)
    return _along(y_BKDL, inverse).sum(1), taps


def _step_sizes(delta: Tensor, bias: Tensor | None, softplus: bool) -> Tensor:
    """``[B, 1|K, D, L]`` plus the bias ``[1|K, D]``."""
    if bias is not None:
        delta = delta + bias.unsqueeze(-1)
    return F.softplus(delta) if softplus else delta


def _along(x: Tensor, order_KL: Tensor) -> Tensor:
    """Each direction's steps ``[B, K, X, L]`` of ``x`` ``[B, 1|K, X, L]``."""
    directions, length = order_KL.shape
    with untraced(order_KL):
        index = order_KL
        if x.shape[1] > 1:  # the steps of all directions, one direction after another
            offset = torch.arange(directions, device=index.device) * length
            index = index + offset[:, None]
        index = index.flatten()
    x_BXJ = x.transpose(1, 2).flatten(2)
    steps = x_BXJ.index_select(2, index).unflatten(2, (directions, length))
    return steps.transpose(1, 2)


def _scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Outputs ``[B, K, D, L]`` and last states ``[B, K, D, N]``.

    Args:
        u: ``[B, K, D, L]``, in the order of the steps, like all operands.
        delta: ``[B, 1|K, D, L]``.
        A: ``[1|K, D, N]``.
        B, C: ``[B, 1|K, N, L]``.
        D: ``[1|K, D]``.
    """

    def steps(x_BKXL: Tensor) -> Tensor:
        return x_BKXL.permute(3, 0, 1, 2)

    batch, directions, channels, _ = u.shape
    directions = max(directions, delta.shape[1], A.shape[0], B.shape[1])
    state = u.new_zeros(batch, directions, A.shape[2], channels)
    y, last_state = outer_products(
        state,
        steps(delta).unsqueeze(-2),
        A.transpose(1, 2),
        steps(B).unsqueeze(-1),
        steps(delta * u).unsqueeze(-2),
        steps(C).unsqueeze(-2),
    )
    y_BKDL = y.squeeze(-2).permute(1, 2, 3, 0)
    if D is not None:
        y_BKDL = y_BKDL + D.unsqueeze(-1) * u
    return y_BKDL, last_state.transpose(2, 3)
