"""Bidirectional WKV in plain torch: readable, any float dtype, any device.

Shape suffixes: B batch, S directions, T tokens, C channels, H heads, D width of a
head.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

LOG_EPSILON = math.log(1e-6)


def unavailable() -> str | None:
    """Plain torch always runs."""
    return None


def refuses(tensors: Mapping[str, Tensor | None]) -> str | None:
    """No tensor that passed the checks of the interface is refused."""
    return None


class Sums(NamedTuple):
    """Weighted sums of values, and of ones, over tokens.

    Attributes:
        scale: Logarithm of the factor that both are still to be multiplied with.
        values: Sum of weight times value.
        weights: Sum of the weights.
    """

    scale: Tensor
    values: Tensor
    weights: Tensor | float


def past_sums(w: Tensor, k: Tensor, v: Tensor) -> Sums:
    """For every token, the sums over those before it.

    Args:
        w: Decay per step ``[C]``.
        k, v: ``[..., T, C]``.

    Returns:
        Sums ``[..., T, C]`` with weights ``exp(-(t - i - 1) w + k_i)`` for i < t. The
        scale, the largest exponent among them, is a constant to autograd: the sums do
        not depend on it.
    """
    steps = torch.arange(k.shape[-2], device=k.device, dtype=k.dtype)[:, None]
    with torch.no_grad():
        scale = (k + steps * w).cummax(-2).values - steps * w
    # Exponents relative to the scale never exceed 0.
    keep = torch.exp(scale.diff(dim=-2).neg() - w)
    weight = torch.exp(k - scale)
    drive = torch.stack([weight * v, weight])
    # Unbound once: the gradient of an indexed step is a tensor of full length.
    drives, factors = drive.unbind(-2), keep.unbind(-2)
    seen = [torch.zeros_like(drives[0]), drives[0]]
    for factor, step in zip(factors, drives[1:], strict=True):
        seen.append(factor * seen[-1] + step)
    values, weights = torch.stack(seen[:-1], dim=-2)
    before = pad(scale[..., :-1, :], (0, 0, 1, 0), value=-math.inf)
    return Sums(before, values, weights)


def future_sums(
    w: Tensor, k: Tensor, v: Tensor, past_sums: Callable[..., Sums] = past_sums
) -> Sums:
    """As :func:`past_sums`, over the tokens after each one."""
    sums = past_sums(w, k.flip(-2), v.flip(-2))
    return Sums(*(x.flip(-2) for x in sums))


def divide(past: Sequence[Sums], future: Sequence[Sums], separate: bool) -> Tensor:
    """Divide the values of both directions by their common sum of weights.

    Returns:
        Tensor: ``[B, 2, T, C]`` if ``separate``, else the sum of both
        ``[B, 1, T, C]``.
    """
    with torch.no_grad():
        largest = torch.full_like(past[0].values, LOG_EPSILON)
        for sums in (*past, *future):
            largest = torch.maximum(largest, sums.scale)
    factors = [torch.exp(sums.scale - largest) for sums in (*past, *future)]
    total = torch.exp(LOG_EPSILON - largest)
    parts = []
    for factor, sums in zip(factors, (*past, *future), strict=True):
        total = total + factor * sums.weights
        parts.append(factor * sums.values)
    directions = [sum(parts[: len(past)]), sum(parts[len(past) :])]
    if not separate:
        directions = [sum(directions)]
    return torch.stack(directions, dim=1) / total[:, None]


def bi_wkv(w: Tensor, u: Tensor, k: Tensor, v: Tensor, separate: bool) -> Tensor:
    """See ``bi_wkv`` of the interface.

    Returns:
        Tensor: Output of the directions ``[B, 2, T, C]`` in token order if
        ``separate``, else their sum ``[B, 1, T, C]``.
    """
    past = [past_sums(w, k, v), Sums(u + k, v, 1.0)]
    return divide(past, [future_sums(w, k, v)], separate)


def bi_wkv6(
    r: Tensor, k: Tensor, v: Tensor, decay: Tensor, u: Tensor, separate: bool
) -> Tensor:
    """See ``bi_wkv6`` of the interface; ``decay`` is ``exp(-exp(w))``.

    Returns:
        Tensor: As :func:`bi_wkv`.
    """
    # Direction 1 reads the tokens backwards; stacked, both take a step at once.
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
