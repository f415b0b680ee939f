"""Operands of the bidirectional WKV and its direct evaluation, term by term."""

import math

import torch
from torch import Tensor

CUDA_CHUNKS = 32


def wkv_operands(
    batch: int = 2,
    length: int = 7,
    channels: int = 12,
    decay: float = 1.0,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Float32 operands of ``bi_wkv`` with decays between ``-decay`` and ``decay``."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    return {
        'w': decay * (2 * torch.rand(channels, generator=generator) - 1),
        'u': randn(channels),
        'k': randn(batch, length, channels),
        'v': randn(batch, length, channels),
    }


def wkv6_operands(
    batch: int = 2,
    length: int = 7,
    heads: int = 2,
    width: int = 6,
    decay: float = 0.0,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Float32 operands of ``bi_wkv6`` with log decay rates around ``decay``."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    shape = batch, length, heads * width
    return {
        'r': randn(*shape),
        'k': randn(*shape),
        'v': randn(*shape),
        'w': decay + randn(*shape),
        'u': randn(heads, width),
    }


def random_taps(length: int, count: int = 5) -> Tensor:
    """Random steps ``[2, count]``, some of them more than once."""
    generator = torch.Generator().manual_seed(3)
    return torch.randint(length, (2, count), generator=generator)


def _distance(length: int) -> Tensor:
    position = torch.arange(length)
    return position[:, None] - position


def formula_weights(w: Tensor, u: Tensor, length: int) -> Tensor:
    """The weight of token j for output t without its key: ``[t, j, C]``."""
    distance = _distance(length)
    weights = torch.exp(-(distance.abs() - 1)[..., None] * w)
    weights[distance == 0] = u.exp()
    return weights


def cuda_weights(w: Tensor, u: Tensor, length: int) -> Tensor:
    """As :func:`formula_weights`, by the rule of the published kernels."""
    t, j = torch.arange(length)[:, None], torch.arange(length)
    size = math.ceil(length / CUDA_CHUNKS)
    start = t // size * size
    distance = _distance(length)[..., None]
    weights = torch.exp(-(distance - 1) * w)
    weights[j < start] = torch.exp(-distance * w)[j < start]
    weights[j > t] = torch.exp(distance * w)[j > t]
    weights[j == t] = u.exp()
    extra = torch.exp(distance * w) * (1 - w.exp())
    return weights + torch.where(((start < j) & (j <= t))[..., None], extra, 0)


def direct_wkv(w, u, k, v, weights=formula_weights) -> tuple[Tensor, Tensor]:
    """``bi_wkv`` in O(T^2): output and both directions at all tokens, in token order.

    Exponents are not shifted: only for operands of moderate size.
    """
    weights_TJC = weights(w, u, k.shape[1])
    past = (_distance(k.shape[1]) >= 0)[..., None]
    key = k.exp()
    total = torch.einsum('tjc,bjc->btc', weights_TJC, key) + 1e-6
    parts = [
        torch.einsum('tjc,bjc->btc', weights_TJC * mask, key * v) / total
        for mask in (past, ~past)
    ]
    return parts[0] + parts[1], torch.stack(parts, dim=1)


def direct_wkv6(r, k, v, w, u) -> tuple[Tensor, Tensor]:
    """``bi_wkv6`` in O(T^2), as :func:`direct_wkv`."""
    length = k.shape[1]
    r, k, v, log_decay = (x.unflatten(2, u.shape) for x in (r, k, v, -w.exp()))
    # Between token j and output t lie the decays of the tokens strictly between them.
    before = log_decay.cumsum(1) - log_decay
    through = log_decay.cumsum(1)
    forward = before[:, :, None] - through[:, None]
    backward = before[:, None] - through[:, :, None]
    distance = _distance(length)[..., None, None]
    past = torch.where(distance > 0, forward.where(distance > 0, 0).exp(), 0)
    past = past + torch.where(distance == 0, u, 0)
    future = torch.where(distance < 0, backward.where(distance < 0, 0).exp(), 0)
    parts = torch.stack(
        [
            torch.einsum('bthd,btjhd,bjhd,bjhe->bthe', r, weights, k, v).flatten(2)
            for weights in (past, future)
        ],
        dim=1,
    )
    return parts.sum(1), parts
