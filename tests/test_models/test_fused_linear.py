"""Losses on logits that never exist all at once."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mmtransmamba.models.divergence import DIVERGENCES, Divergence
from mmtransmamba.models.fused_linear import fused_linear_loss
from mmtransmamba.models.token_losses import mean_over_tokens, token_nll
from mmtransmamba.utils.allocated_memory import allocated_peak

M, C, V = 7, 5, 11


def tensors(dtype=torch.float64, bias=True):
    torch.manual_seed(0)
    shapes = dict(hidden=(M, C), weight=(V, C)) | (dict(bias=(V,)) if bias else {})
    leaves = {
        k: torch.randn(s, dtype=torch.float64).to(dtype) for k, s in shapes.items()
    }
    return {'bias': None} | {k: v.requires_grad_() for k, v in leaves.items()}


def targets():
    return torch.arange(M) % V


def teacher_rows(dtype=torch.float64):
    return torch.randn(M, V, generator=torch.Generator().manual_seed(1)).to(dtype)


def both(divergence):
    """Divergence over a vocabulary prefix, and cross-entropy over all ids."""

    def loss(logits, teacher, labels):
        kl = divergence(logits[:, : V - 2], teacher[:, : V - 2])
        nll = F.cross_entropy(logits, labels, reduction='none')
        return torch.stack([2.0 * kl, 0.5 * nll], -1)

    return loss


def fused(given, loss, *rows, chunk):
    return fused_linear_loss(
        loss, given['hidden'], given['weight'], given['bias'], *rows, chunk=chunk
    )


def plain(given, loss, *rows):
    logits = F.linear(given['hidden'], given['weight'], given['bias'])
    return loss(logits, *rows).mean(0)


@pytest.mark.parametrize('chunk', [1, 3, M, 100])
@pytest.mark.parametrize('kind', DIVERGENCES)
@pytest.mark.parametrize('bias', [True, False])
def test_values_and_gradients_are_those_of_the_plain_loss(kind, chunk, bias):
    loss = both(Divergence(kind, temperature=2.0))
    ours, theirs = tensors(bias=bias), tensors(bias=bias)
    total, parts = fused(ours, loss, teacher_rows(), targets(), chunk=chunk)
    expected = plain(theirs, loss, teacher_rows(), targets())
    (3 * total).backward()
    (3 * expected.sum()).backward()
    torch.testing.assert_close(parts, expected.detach())
    assert not parts.requires_grad
    for name, leaf in theirs.items():
        if leaf is not None:
            torch.testing.assert_close(ours[name].grad, leaf.grad, msg=name)


@pytest.mark.parametrize('kind', DIVERGENCES)
def test_gradients_are_those_of_differences(kind):
    loss = both(Divergence(kind, temperature=1.5))
    given = tensors()

    def total(hidden, weight, bias):
        rows = teacher_rows(), targets()
        return fused_linear_loss(loss, hidden, weight, bias, *rows, chunk=3)[0]

    assert torch.autograd.gradcheck(
        total, tuple(given[k] for k in given if k != 'bias') + (given['bias'],)
    )


@pytest.mark.parametrize('needed', ['hidden', 'weight', 'bias', None])
def test_only_what_is_needed_gets_a_gradient(needed):
    given = {k: v.requires_grad_(k == needed) for k, v in tensors().items()}
    total, _ = fused(given, both(Divergence()), teacher_rows(), targets(), chunk=3)
    assert total.requires_grad == (needed is not None)
    if needed is not None:
        total.backward()
    assert [k for k, v in given.items() if v.grad is not None] == [needed][
        : needed is not None
    ]


@pytest.mark.parametrize('reentrant', [False, True])
def test_a_checkpoint_around_it_changes_nothing(reentrant):
    loss = both(Divergence('jsd'))
    gradients = []
    for wrap in (False, True):
        given = tensors()

        def step(hidden, given=given):
            changed = dict(given, hidden=hidden.tanh())
            return fused(changed, loss, teacher_rows(), targets(), chunk=3)[0]

        total = (
            checkpoint(step, given['hidden'], use_reentrant=reentrant)
            if wrap
            else step(given['hidden'])
        )
        total.backward()
        gradients.append([v.grad for v in given.values()])
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


def test_a_second_backward_pass_adds_the_same_gradient():
    given = tensors()
    total, _ = fused(given, both(Divergence()), teacher_rows(), targets(), chunk=3)
    total.backward(retain_graph=True)
    once = given['weight'].grad.clone()
    total.backward()
    torch.testing.assert_close(given['weight'].grad, 2 * once)


@pytest.mark.parametrize('autocast', [False, True])
def test_half_precision_is_close_to_float32(autocast):
    loss = both(Divergence())
    exact = tensors(torch.float32)
    half = tensors(torch.float32 if autocast else torch.bfloat16)
    rows = teacher_rows(torch.float32), targets()
    with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
        total, parts = fused(half, loss, *rows, chunk=3)
    total.backward()
    expected = plain(exact, loss, *rows).sum()
    expected.backward()
    assert total.dtype == parts.dtype == torch.float32
    torch.testing.assert_close(total, expected, rtol=3e-2, atol=0)
    for name, leaf in exact.items():
        assert half[name].grad.dtype == half[name].dtype
        error = (half[name].grad.float() - leaf.grad).norm() / leaf.grad.norm()
        assert error < 3e-2, name


def test_small_gradients_survive_float16_with_a_scaler():
    """Divided by the number of tokens before the factor they would vanish."""
    torch.manual_seed(0)
    hidden = (1e-3 * torch.randn(4096, 4)).half().requires_grad_()
    weight = torch.randn(8, 4).half().requires_grad_()
    total, _ = fused_linear_loss(
        lambda logits: 1e-3 * logits.float().square().mean(-1, keepdim=True),
        hidden,
        weight,
        None,
        chunk=512,
    )
    (65536 * total).backward()
    exact = (
        65536 * 2e-3 / 8 / 4096 * (hidden.detach().float() @ weight.detach().float().T)
    )
    torch.testing.assert_close(
        hidden.grad.float(), exact @ weight.detach().float(), rtol=2e-2, atol=1e-5
    )


def test_no_token_gives_zero_and_zero_gradients():
    given = tensors()
    empty = dict(given, hidden=given['hidden'][:0])
    total, parts = fused(
        empty, both(Divergence()), teacher_rows()[:0], targets()[:0], chunk=3
    )
    total.backward()
    assert total == 0 and parts.tolist() == [0, 0]
    assert not given['weight'].grad.any()


def test_without_gradients_none_are_computed():
    calls = []

    def loss(logits):
        calls.append(logits.requires_grad)
        return logits.new_ones(len(logits), 1)

    given = tensors()
    with torch.no_grad():
        total, _ = fused(given, loss, chunk=3)
    assert total == 1 and not total.requires_grad and len(calls) == 3


def test_memory_does_not_grow_with_the_logits():
    tokens, vocabulary = 768, 16384
    kl = Divergence()
    hidden, teacher = torch.randn(tokens, 16), torch.randn(tokens, 16)
    weight = torch.randn(vocabulary, 16)

    def leaves():
        return hidden.clone().requires_grad_(), weight.clone().requires_grad_()

    def with_logits():
        h, w = leaves()
        logits, target = h @ w.T, teacher @ weight.T

        def loss(student, of_teacher, labels):
            return kl(student, of_teacher) + token_nll(student, labels)

        rows = torch.zeros(tokens, dtype=torch.int64)
        mean_over_tokens(loss, logits, target, rows).backward()

    def without():
        def loss(logits, states, labels):
            value = kl(logits, states @ weight.T) + token_nll(logits, labels)
            return value[:, None]

        rows = torch.zeros(tokens, dtype=torch.int64)
        fused_linear_loss(loss, *leaves(), None, teacher, rows, chunk=32)[0].backward()

    of_logits = tokens * vocabulary * 4
    assert allocated_peak(without) < 0.7 * of_logits
    assert allocated_peak(with_logits) > 2.9 * of_logits
