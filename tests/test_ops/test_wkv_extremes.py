"""The WKV at the ends of the range of numbers, against the closed form."""

import math
from fractions import Fraction

import pytest
import torch
from scan_cases import outputs_and_gradients
from wkv_cases import wkv6_operands, wkv_operands

from mmtransmamba.ops import backends, bi_wkv, bi_wkv6

BACKENDS = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            backends.available('bi_wkv')[name] is not None, reason='not built'
        ),
    )
    for name in ('native', 'reference', 'portable')
]
DTYPES = {'native': [torch.float32]}
LARGEST = torch.finfo(torch.float32).max
# What is changed in the operands: name, index, value.
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
CASES = [
    pytest.param(change, id=f'{kind} {i}')
    for kind, changes in EXTREMES.items()
    for i, change in enumerate(changes)
]


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


# Operands of extreme size that cancel each other are left out: there one unit in the
# last place of either decides.
@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('change', CASES)
@pytest.mark.parametrize('length', [1, 2, 6])
def test_output_and_gradients_are_the_limits(backend, change, length):
    operands = wkv_operands(2, length, 3)
    for name, index, value in change:
        if all(not isinstance(i, int) or i < length for i in index[1:]):
            operands[name][index] = value
    grad = torch.linspace(-1, 2, operands['k'].numel()).view(operands['k'].shape)

    def run(**leaves):
        return bi_wkv(**leaves, backend=backend)[0]

    for dtype in DTYPES.get(backend, [torch.float32, torch.float64]):
        leaves = {n: x.to(dtype).requires_grad_() for n, x in operands.items()}
        y = run(**leaves)
        found = torch.autograd.grad(y, leaves.values(), grad.to(dtype))
        found = dict(zip(leaves, found, strict=True), y=y.detach())
        expected = {n: torch.zeros_like(x).double() for n, x in found.items()}
        for b in range(2):
            for c in range(3):
                lists = [operands[n][b, :, c].tolist() for n in 'kv']
                scalars = [float(operands[n][c]) for n in 'wu']
                results = closed_form(*scalars, *lists, grad[b, :, c].tolist())
                y, d_w, d_u, d_k, d_v = results
                expected['w'][c] += d_w
                expected['u'][c] += d_u
                for name, values in (('y', y), ('k', d_k), ('v', d_v)):
                    expected[name][b, :, c] = torch.tensor(values, dtype=torch.float64)
        tolerance = 2e-5 if dtype == torch.float32 else 1e-11
        for name, want in expected.items():
            torch.testing.assert_close(
                found[name].double(),
                want,
                rtol=tolerance,
                atol=tolerance,
                msg=lambda text, name=name: f'{name}: {text}',
            )


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('w', [-math.inf, -1e38, -1e30, -1e4, 1e4, 1e30, math.inf])
def test_v6_keeps_or_forgets_everything(backend, w):
    operands = wkv6_operands(length=6)
    operands['w'][:, ::2] = w
    results = outputs_and_gradients(
        lambda **leaves: bi_wkv6(**leaves, backend=backend), operands, torch.float32
    )
    # Decays of 1 and 0 to machine precision, without anything extreme.
    operands['w'].clamp_(-40, 8)
    expected = outputs_and_gradients(
        lambda **leaves: bi_wkv6(**leaves, backend='reference'), operands, torch.float64
    )
    for name, want in expected.items():
        torch.testing.assert_close(
            results[name].double(), want, rtol=1e-5, atol=1e-5, msg=name
        )


@pytest.mark.parametrize('backend', ['reference', 'portable'])
@pytest.mark.parametrize('w', [-1e38, -1e30, -1e4, 0.0, 1e4, 1e30, 1e38])
def test_the_published_rule_has_finite_results(backend, w):
    operands = wkv_operands(length=70)
    operands['w'][:] = w
    operands['k'][:, ::2] += 1e4
    results = outputs_and_gradients(
        lambda **leaves: bi_wkv(**leaves, rule='cuda', backend=backend),
        operands,
        torch.float32,
    )
    assert all(x.isfinite().all() for x in results.values())
