"""The WKV at the ends of the range of numbers, against the closed form."""

import math

import pytest
import torch
from scan_cases import outputs_and_gradients
from wkv_cases import wkv6_operands, wkv_operands
from wkv_extremes import (
    EXTREMES,
    expected_results,
    extreme_operands,
    some_gradient,
)

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
CASES = [
    pytest.param(change, id=f'{kind} {i}')
    for kind, changes in EXTREMES.items()
    for i, change in enumerate(changes)
]


# Operands of extreme size that cancel each other are left out: there one unit in the
# last place of either decides.
@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('change', CASES)
@pytest.mark.parametrize('length', [1, 2, 6])
def test_output_and_gradients_are_the_limits(backend, change, length):
    operands = extreme_operands(length, change)
    grad = some_gradient(operands['k'])
    expected = expected_results(operands, grad)

    def run(**leaves):
        return bi_wkv(**leaves, backend=backend)[0]

    for dtype in DTYPES.get(backend, [torch.float32, torch.float64]):
        leaves = {n: x.to(dtype).requires_grad_() for n, x in operands.items()}
        y = run(**leaves)
        found = torch.autograd.grad(y, leaves.values(), grad.to(dtype))
        found = dict(zip(leaves, found, strict=True), y=y.detach())
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
