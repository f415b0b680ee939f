"""Bidirectional WKV for exported files, as one loop over the tokens.

Used only on request: ``use_backend('portable')``. See
:mod:`mmtransmamba.ops.recurrence`.

Shape suffixes: B batch, S directions, T tokens, C channels, H heads, D width of a
head.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..plain_torch import refuses, unavailable
from ..recurrence import outer_products, weighted_sums
from .reference import Own, Sums, divide

__all__ = ['bi_wkv', 'bi_wkv6', 'past_sums', 'refuses', 'unavailable']


def past_sums(w: Tensor, k: Tensor, v: Tensor) -> Sums:
    """Like ``past_sums`` of the reference backend."""
    steps = k.movedim(-2, 0)
    values = torch.stack([v, torch.ones_like(v)]).movedim(-2, 0)
    scale, decays, sums = weighted_sums(w, steps, values)
    values, weights = sums.movedim(0, -2).unbind(0)
    return Sums(scale.movedim(0, -2), decays.movedim(0, -2), values, weights)


def bi_wkv(w: Tensor, u: Tensor, k: Tensor, v: Tensor, separate: bool) -> Tensor:
    """See the reference backend."""
    # Direction 1 reads the tokens backwards; both are stacked and step together.
    both = past_sums(w, *(torch.stack([x, x.flip(1)]) for x in (k, v)))
    past = Sums(*(x[0] for x in both))
    future = Sums(*(x[1].flip(1) for x in both))
    return divide(w, Own(u, k, v), [past], [future], separate)


def bi_wkv6(
    r: Tensor, k: Tensor, v: Tensor, decay: Tensor, u: Tensor, separate: bool
) -> Tensor:
    """See the reference backend."""

    def steps(x_BTC: Tensor) -> Tensor:
        x_BSTC = torch.stack([x_BTC, x_BTC.flip(1)], dim=1)
        return x_BSTC.unflatten(3, u.shape).permute(2, 0, 1, 3, 4)

    def before(x_TBSHD: Tensor) -> Tensor:
        """A token reads the state before it, so updates are delayed by one step."""
        return pad(x_TBSHD[:-1], (0, 0, 0, 0, 0, 0, 0, 0, 1, 0))

    width = u.shape[1]
    # The gradient of the logarithm of 0 would be NaN.
    decay = decay.clamp(min=torch.finfo(decay.dtype).tiny)
    y, _ = outer_products(
        r.new_zeros(r.shape[0], 2, *u.shape, width),
        before(steps(torch.log(decay))).unsqueeze(-1),
        torch.ones_like(u[:, :, None]),
        before(steps(k)).unsqueeze(-1),
        before(steps(v)).unsqueeze(-2),
        steps(r).unsqueeze(-2),
    )
    y_BSTC = y.squeeze(-2).permute(1, 2, 0, 3, 4).flatten(3)
    r_BTHD, k_BTHD, v_BTHD = (x.unflatten(2, u.shape) for x in (r, k, v))
    own_BTC = ((r_BTHD * u * k_BTHD).sum(-1, keepdim=True) * v_BTHD).flatten(2)
    directions = [y_BSTC[:, 0] + own_BTC, y_BSTC[:, 1].flip(1)]
    if not separate:
        directions = [sum(directions)]
    return torch.stack(directions, dim=1)
