"""Bidirectional WKV in plain torch: readable, any float dtype, any device.

Shape suffixes: B batch, S directions, T tokens, C channels, H heads, D width of a
head.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..plain_torch import refuses, unavailable

__all__ = [
    'LOG_EPSILON',
    'Own',
    'Sums',
    'bi_wkv',
    'bi_wkv6',
    'divide',
    'future_sums',
    'past_sums',
    'refuses',
    'unavailable',
]

LOG_EPSILON = math.log(1e-6)


class Sums(NamedTuple):
    """Weighted sums of values, and of ones, over tokens.

    Both must still be multiplied by ``exp(scale - steps * w)``. The exponent is stored
    as a pair: two large exponents may lie close together, and then the difference of
    the pairs is exact, but the difference of rounded numbers is not.

    Attributes:
        scale: The part of the exponent from the keys, -inf where there is no token.
        steps: Number of decays so far.
        values: Sum of weight times value.
        weights: Sum of the weights.
    """

    scale: Tensor
    steps: Tensor
    values: Tensor
    weights: Tensor


def past_sums(w: Tensor, k: Tensor, v: Tensor) -> Sums:
    """For every token, the sums over the tokens before it.

    Args:
        w: Decay per step ``[C]``.
        k, v: ``[..., T, C]``.

    Returns:
        Sums ``[..., T, C]`` with weights ``exp(-(t - i - 1) w + k_i)`` for i < t,
        relative to the largest of them.
    """
    leader = _leaders(w, k)
    scale, position = k.gather(-2, leader), leader.to(k.dtype)
    own = torch.arange(k.shape[-2], device=k.device, dtype=k.dtype)[:, None]
    # Exponents relative to the scale never exceed 0.
    keep = torch.exp(position.diff(dim=-2).neg() * w - scale.diff(dim=-2))
    weight = torch.exp((k - scale) + (own - position) * w)
    drive = torch.stack([weight * v, weight])
    # One unbind: the gradient of an indexed step is a tensor of full length.
    drives, factors = drive.unbind(-2), keep.unbind(-2)
    seen = [torch.zeros_like(drives[0]), drives[0]]
    for factor, step in zip(factors, drives[1:], strict=True):
        seen.append(factor * seen[-1] + step)
    values, weights = torch.stack(seen[:-1], dim=-2)
    before = pad(scale[..., :-1, :], (0, 0, 1, 0), value=-math.inf)
    steps = pad((own - position)[..., :-1, :], (0, 0, 1, 0))
    return Sums(before, steps, values, weights)


@torch.no_grad()
def _leaders(w: Tensor, k: Tensor) -> Tensor:
    """For every token, the index of the largest weight among the tokens up to it.

    Args:
        w: Decay per step ``[C]``.
        k: ``[..., T, C]``.

    Returns:
        Tensor: Int64, in the shape of ``k``.
    """
    leader = torch.arange(k.shape[-2], device=k.device)[:, None].expand(k.shape)
    scale, shift = k, 1
    # Each round doubles the number of tokens over which the maximum is taken.
    while shift < k.shape[-2]:
        older_scale, older = scale[..., :-shift, :], leader[..., :-shift, :]
        newer_scale, newer = scale[..., shift:, :], leader[..., shift:, :]
        ahead = (older_scale - newer_scale) + (older - newer) * w > 0
        better = torch.where(ahead, older, newer)
        leader = torch.cat([leader[..., :shift, :], better], dim=-2)
        scale = k.gather(-2, leader)
        shift *= 2
    return leader


def future_sums(
    w: Tensor, k: Tensor, v: Tensor, past_sums: Callable[..., Sums] = past_sums
) -> Sums:
    """Like :func:`past_sums`, over the tokens after each one."""
    sums = past_sums(w, k.flip(-2), v.flip(-2))
    return Sums(*(x.flip(-2) for x in sums))


class Own(NamedTuple):
    """The contribution of a token to its own output: ``exp(u + k)`` times its value.

    Adding ``u`` and ``k`` would lose the smaller one in rounding.
    """

    u: Tensor
    k: Tensor
    v: Tensor


def divide(
    w: Tensor, own: Own, past: Sequence[Sums], future: Sequence[Sums], separate: bool
) -> Tensor:
    """Divide the values of both directions by their common sum of weights.

    Args:
        w: Decay per step ``[C]``.
        own: Contribution of the token itself, which belongs to the past.
        past, future: The sums over other tokens in either direction ``[B, T, C]``.
        separate: Whether the directions are returned separately.

    Returns:
        Tensor: ``[B, 2, T, C]`` if ``separate``, else the sum of both
        ``[B, 1, T, C]``.
    """
    scale = torch.full_like(own.v, LOG_EPSILON)
    steps = zero = torch.zeros_like(scale)
    for sums in (*past, *future):
        ahead = (sums.scale - scale) - (sums.steps - steps) * w > 0
        scale = torch.where(ahead, sums.scale, scale)
        steps = torch.where(ahead, sums.steps, steps)
    gap = ((own.k - scale) + steps * w) + own.u
    leads = gap > 0
    # The factors of the token itself and of the others; the larger one is 1.
    factor_of_own = torch.exp(torch.where(leads, zero, gap))
    factor_of_others = torch.exp(torch.where(leads, -gap, zero))
    others = torch.exp((LOG_EPSILON - scale) + steps * w)
    parts = []
    for sums in (*past, *future):
        factor = torch.exp((sums.scale - scale) - (sums.steps - steps) * w)
        others = others + factor * sums.weights
        parts.append(factor_of_others * (factor * sums.values))
    parts.insert(0, factor_of_own * own.v)
    middle = 1 + len(past)
    directions = [sum(parts[:middle]), sum(parts[middle:])]
    if not separate:
        directions = [sum(directions)]
    total = factor_of_own + factor_of_others * others
    return torch.stack(directions, dim=1) / total[:, None]


def bi_wkv(w: Tensor, u: Tensor, k: Tensor, v: Tensor, separate: bool) -> Tensor:
    """See ``bi_wkv`` of the interface.

    Returns:
        Tensor: Output of the directions ``[B, 2, T, C]`` in token order if
        ``separate``, else their sum ``[B, 1, T, C]``.
    """
    past, future = past_sums(w, k, v), future_sums(w, k, v)
    return divide(w, Own(u, k, v), [past], [future], separate)


def bi_wkv6(
    r: Tensor, k: Tensor, v: Tensor, decay: Tensor, u: Tensor, separate: bool
) -> Tensor:
    """See ``bi_wkv6`` of the interface; ``decay`` is ``exp(-exp(w))``.

    Returns:
        Tensor: As :func:`bi_wkv`.
    """
    # Direction 1 reads the tokens backwards; both are stacked and step together.
    r_BTHD, k_BTHD, v_BTHD, decay_BTHD = (
        x.unflatten(2, u.shape) for x in (r, k, v, decay)
    )
    steps = [
        torch.stack([x, x.flip(1)], dim=1).unbind(2)
        for x in (r_BTHD, k_BTHD, v_BTHD, decay_BTHD)
    ]
    state_BSHDD = r.new_zeros(len(r), 2, *u.shape, u.shape[1])
    outputs = []
    for r_BSHD, k_BSHD, v_BSHD, decay_BSHD in zip(*steps, strict=True):
        outputs.append((r_BSHD[..., None] * state_BSHDD).sum(-2))
        drive = k_BSHD[..., None] * v_BSHD[..., None, :]
        state_BSHDD = decay_BSHD[..., None] * state_BSHDD + drive
    y_BSTHD = torch.stack(outputs, dim=2)
    own_BTHD = (r_BTHD * u * k_BTHD).sum(-1, keepdim=True) * v_BTHD
    directions = [y_BSTHD[:, 0] + own_BTHD, y_BSTHD[:, 1].flip(1)]
    if not separate:
        directions = [sum(directions)]
    return torch.stack(directions, dim=1).flatten(3)
