"""Operands of ``bi_wkv`` at the ends of the range of numbers, and its exact values."""

import math
from fractions import Fraction

import torch
from torch import Tensor
from wkv_cases import wkv_operands

LARGEST = torch.finfo(torch.float32).max
# Changes of the operands: name, index, value.
EXTREMES = {
    'w': [(('w', (), w),) for w in (0.0, 1e4, -1e4, 1e30, -1e30, 1e38, -1e38)],
    'k': [(('k', (), k),) for k in (1e4, -1e4, 1e30, -1e30, 1e38, -1e38, LARGEST)],
    'u': [(('u', (), u),) for u in (1e4, -1e4, 1e30, -1e30, LARGEST, -LARGEST)],
    'one key': [
        (('k', (slice(None), 2), k),)
        for k in (1e4, -1e4, 1e30, -1e30, 1e38, -1e38, LARGEST, -math.inf)
    ],
    'two keys': [(('k', (0, 1), 1e38), ('k', (0, 4), 1e38))],
    'keys and bonus': [
        (('k', (), LARGEST), ('u', (), LARGEST)),
        (('k', (), -LARGEST), ('u', (), -LARGEST)),
    ],
    'keys and decay': [
        (('k', (), 1e38), ('w', (), 0.5)),
        (('k', (), 1e38), ('w', (), -0.5)),
        (('k', (), -1e30), ('w', (), -1e30)),
    ],
}
BATCH, CHANNELS = 2, 3


def extreme_operands(length: int, change: tuple) -> dict[str, Tensor]:
    """Operands with the values of one entry of :data:`EXTREMES`."""
    operands = wkv_operands(BATCH, length, CHANNELS)
    for name, index, value in change:
        if all(not isinstance(i, int) or i < length for i in index[1:]):
            operands[name][index] = value
    return operands


def some_gradient(like: Tensor) -> Tensor:
    """Gradient of the output that the expected gradients are for."""
    grad = torch.linspace(-1, 2, BATCH * like.shape[1] * CHANNELS)
    return grad.view(BATCH, -1, CHANNELS).tile(like.shape[2] // CHANNELS)


def expected_results(operands: dict[str, Tensor], grad: Tensor) -> dict[str, Tensor]:
    """Output and gradients in float64, as those of ``sum(grad * y)``."""
    expected = {n: torch.zeros_like(x).double() for n, x in operands.items()}
    expected['y'] = expected['k'].clone()
    batch, _, channels = operands['k'].shape
    for b in range(batch):
        for c in range(channels):
            lists = [operands[n][b, :, c].tolist() for n in 'kv']
            scalars = [float(operands[n][c]) for n in 'wu']
            results = closed_form(*scalars, *lists, grad[b, :, c].tolist())
            y, d_w, d_u, d_k, d_v = results
            expected['w'][c] += d_w
            expected['u'][c] += d_u
            for name, values in (('y', y), ('k', d_k), ('v', d_v)):
                expected[name][b, :, c] = torch.tensor(values, dtype=torch.float64)
    return expected


def closed_form(w, u, k, v, grad):
    """Output and gradients of ``sum(grad * y)``, exponents as exact fractions.

    All of one batch entry and channel: ``w`` and ``u`` are numbers, the rest lists.
    """
    epsilon = Fraction(math.log(1e-6))
    y, d_w, d_u = [], 0.0, 0.0
    d_k, d_v = [0.0] * len(k), [0.0] * len(k)
    for t in range(len(k)):
        exponents, decays = [], []
        for j, key in enumerate(k):
            decays.append(max(abs(t - j) - 1, 0))
            own = Fraction(u) if j == t else -decays[-1] * Fraction(w)
            exponents.append(None if key == -math.inf else Fraction(key) + own)
        top = max(epsilon, *(e for e in exponents if e is not None))
        weights = [relative(e, top) for e in exponents]
        total = sum(weights) + relative(epsilon, top)
        shares = [weight / total for weight in weights]
        y.append(sum(p * x for p, x in zip(shares, v, strict=True)))
        for j, share in enumerate(shares):
            d_v[j] += grad[t] * share
            change = grad[t] * share * (v[j] - y[t])
            d_k[j] += change
            d_w -= decays[j] * change
            if j == t:
                d_u += change
    return y, d_w, d_u, d_k, d_v


def relative(exponent, top):
    if exponent is None or exponent - top < -800:
        return 0.0
    return math.exp(exponent - top)
