"""Recurrences in both directions against full matrices and plain loops in float64."""

import pytest
import torch
from torch.nn import functional as F

from mmtransmamba.ops import delta_rule_both_ways, ssd_both_ways

SHAPES = [(2, 7, 3, 4, 5), (1, 1, 2, 3, 3), (1, 2, 1, 1, 4)]


def drawn(batch, length, heads):
    """A generator of float64 tensors ``[N, L, ..., H, size]``, and step sizes."""
    generator = torch.Generator().manual_seed(length)

    def randn(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return randn, F.softplus(randn(batch, length, 2, heads) - 1)


def ssd_operands(batch, length, heads, width, states):
    randn, dt = drawn(batch, length, heads)
    return dict(
        x=randn(batch, length, heads, width),
        dt=dt,
        A=-2 * randn(2, heads).abs(),
        B=randn(batch, length, heads, states),
        C=randn(batch, length, heads, states),
    )


def delta_operands(batch, length, heads, width, states):
    randn, dt = drawn(batch, length, heads)
    return dict(
        q=randn(batch, length, heads, states),
        k=randn(batch, length, heads, states),
        v=randn(batch, length, heads, width),
        g=-dt,
        beta=randn(batch, length, 2, heads).sigmoid(),
    )


def ssd_matrices(dt, A, B, C):
    """Matrices of the two sweeps ``[2, N, H, L, L]``, one entry at a time."""
    batch, length, heads, _ = B.shape
    matrices = torch.zeros(2, batch, heads, length, length, dtype=torch.float64)
    for n, h, t, s in (
        (n, h, t, s)
        for n in range(batch)
        for h in range(heads)
        for t in range(length)
        for s in range(length)
    ):
        sweep, steps = (0, slice(s + 1, t + 1)) if s <= t else (1, slice(t, s))
        decay = torch.exp(A[sweep, h] * dt[n, steps, sweep, h].sum())
        score = C[n, t, h] @ B[n, s, h]
        matrices[sweep, n, h, t, s] = score * decay * dt[n, s, sweep, h]
    return matrices


@pytest.mark.parametrize('shape', SHAPES)
def test_ssd_both_ways_is_the_product_with_a_full_matrix(shape):
    parts = ssd_operands(*shape)
    matrices = ssd_matrices(*(parts[name] for name in ('dt', 'A', 'B', 'C')))
    expected = torch.einsum('wnhts,nshp->ntwhp', matrices, parts['x'])
    torch.testing.assert_close(ssd_both_ways(**parts), expected)


def test_ssd_without_decay_is_linear_attention_over_all_tokens():
    parts = ssd_operands(2, 70, 2, 4, 5)
    parts |= dict(A=torch.zeros_like(parts['A']), dt=torch.full_like(parts['dt'], 0.5))
    scores = torch.einsum('nthk,nshk->nhts', parts['C'], parts['B'])
    expected = 0.5 * torch.einsum('nhts,nshp->nthp', scores, parts['x'])
    torch.testing.assert_close(ssd_both_ways(**parts).sum(2), expected)


@pytest.mark.parametrize('shape', SHAPES)
def test_delta_rule_both_ways_is_two_loops_over_the_tokens(shape):
    parts = delta_operands(*shape)
    q, k = (F.normalize(parts[name], dim=-1) for name in 'qk')
    v, g, beta = (parts[name] for name in ('v', 'g', 'beta'))
    batch, length, heads, states = q.shape
    expected = torch.zeros(batch, length, 2, heads, v.shape[-1], dtype=torch.float64)
    for n in range(batch):
        for h in range(heads):
            for sweep in range(2):
                state = torch.zeros(states, v.shape[-1], dtype=torch.float64)
                for t in range(length) if sweep == 0 else range(length - 1, -1, -1):
                    state = g[n, t, sweep, h].exp() * state
                    before = state
                    error = beta[n, t, sweep, h] * (v[n, t, h] - k[n, t, h] @ state)
                    state = state + torch.outer(k[n, t, h], error)
                    read = state if sweep == 0 else before
                    expected[n, t, sweep, h] = q[n, t, h] @ read / states**0.5
    # Lengths of 1 contain an epsilon of 1e-6.
    y = delta_rule_both_ways(**parts)
    torch.testing.assert_close(y, expected, atol=1e-6, rtol=1e-5)


RULES = [(ssd_both_ways, ssd_operands), (delta_rule_both_ways, delta_operands)]


@pytest.mark.parametrize(('rule', 'operands'), RULES)
def test_gradients_reach_every_operand_and_agree_with_differences(rule, operands):
    parts = {k: v.requires_grad_() for k, v in operands(1, 3, 2, 2, 2).items()}
    names = list(parts)
    assert torch.autograd.gradcheck(
        lambda *given: rule(**dict(zip(names, given, strict=True))), (*parts.values(),)
    )


@pytest.mark.parametrize(
    ('dtype', 'tolerance'), [(torch.bfloat16, 4e-3), (torch.float16, 5e-4)]
)
@pytest.mark.parametrize(('rule', 'operands'), RULES)
def test_neither_sweep_is_computed_in_half_precision(rule, operands, dtype, tolerance):
    halves = {name: x.to(dtype) for name, x in operands(1, 200, 2, 3, 4).items()}
    found = rule(**halves).double()
    expected = rule(**{name: x.double() for name, x in halves.items()})
    for sweep in range(2):
        error = (found - expected)[:, :, sweep].norm() / expected[:, :, sweep].norm()
        assert error < tolerance


def test_a_rate_of_minus_infinity_forgets_everything_but_at_steps_of_zero():
    operands = ssd_operands(1, 5, 2, 3, 4)
    operands['A'][1, 0] = -torch.inf
    operands['dt'][:, 2] = 0
    y = ssd_both_ways(**operands)
    operands['A'][1, 0] = -1e300
    assert torch.equal(y, ssd_both_ways(**operands))


@pytest.mark.parametrize(('rule', 'operands'), RULES)
def test_every_backend_computes_the_same_in_float32(rule, operands):
    parts = {k: v.float() for k, v in operands(2, 70, 2, 8, 8).items()}
    expected = rule(**{k: v.double() for k, v in parts.items()}, backend='reference')
    for backend in ('chunked', 'reference', None):
        y = rule(**parts, backend=backend)
        torch.testing.assert_close(y.double(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ('rule', 'operands', 'name', 'accepted'),
    [
        (ssd_both_ways, ssd_operands, 'dt', r'\[N, L, 2, H\]'),
        (ssd_both_ways, ssd_operands, 'A', r'\[2, H\]'),
        (delta_rule_both_ways, delta_operands, 'g', r'\[N, L, 2, H\]'),
        (delta_rule_both_ways, delta_operands, 'beta', r'\[N, L, 2, H\]'),
    ],
)
def test_operands_without_a_value_for_each_sweep_are_refused(
    rule, operands, name, accepted
):
    parts = operands(2, 5, 3, 4, 4)
    parts[name] = parts[name].select(-2, 0)
    with pytest.raises(ValueError, match=f'{name} has shape .* accepted: {accepted}'):
        rule(**parts)
