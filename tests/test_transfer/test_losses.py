"""Distances between vectors, against torch's own and numerical gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from mmtransmamba.transfer.losses import CosineDistance, _Cosine


def vectors(*shape, scale=1.0, dtype=torch.float32):
    return (scale * torch.randn(shape)).to(dtype).requires_grad_()


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ('own', 'other'),
    [
        ((6,), (6,)),
        ((2, 3, 5), (2, 3, 5)),
        ((2, 4, 3, 1), (2, 4, 3, 1)),
        ((2, 4, 3, 5), (2, 1, 3, 5)),
        ((3, 5), (2, 3, 5)),
        ((0, 5), (0, 5)),
    ],
    ids=str,
)
def test_cosine_is_that_of_torch(own, other, dtype):
    pair = vectors(*own, dtype=dtype), vectors(*other, dtype=dtype)
    found = CosineDistance()(*pair)
    expected = 1 - F.cosine_similarity(*(x.float() for x in pair), dim=-1)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)
    weights = torch.randn(expected.shape)
    for got, wanted in zip(
        torch.autograd.grad(found, pair, weights),
        torch.autograd.grad(expected, pair, weights),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize('scale', [0.0, 1e-9, 1e-6, 1e6, 1e15])
def test_cosine_of_tiny_and_huge_vectors(scale):
    """A norm below 1e-8 counts as 1e-8, in the gradient as in the value."""

    def exact(*pair):
        norms = [x.square().sum(-1).sqrt().clamp_min(1e-8) for x in pair]
        return 1 - (pair[0] * pair[1]).sum(-1) / (norms[0] * norms[1])

    pair = vectors(4, 5, scale=scale), vectors(4, 5)
    doubled = [x.detach().double().requires_grad_() for x in pair]
    found = CosineDistance()(*pair)
    torch.testing.assert_close(found, exact(*doubled).float())
    expected = torch.autograd.grad(exact(*doubled).sum(), doubled)
    if not scale:
        # The square root has no derivative there, and the norm is a constant.
        expected[0].copy_(-F.normalize(doubled[1], dim=-1) / 1e-8)
    for got, wanted in zip(
        torch.autograd.grad(found.sum(), pair), expected, strict=True
    ):
        size = wanted.abs().max().item()
        torch.testing.assert_close(got, wanted.float(), rtol=1e-4, atol=1e-5 * size)


def test_gradient_of_the_cosine():
    pair = [torch.randn(3, 2, 7, dtype=torch.float64) for _ in range(2)]
    assert gradcheck(_Cosine.apply, [x.requires_grad_() for x in pair])


@pytest.mark.parametrize('learner', [0, 1])
def test_only_what_learns_has_a_gradient(learner):
    pair = [torch.randn(3, 5) for _ in range(2)]
    pair[learner].requires_grad_()
    CosineDistance()(*pair).sum().backward()
    assert pair[learner].grad.any()
    assert pair[1 - learner].grad is None
    # A second step finds the vectors as they were.
    kept = pair[learner].grad.clone()
    pair[learner].grad = None
    CosineDistance()(*pair).sum().backward()
    assert torch.equal(pair[learner].grad, kept)


def test_the_cosine_compiles():
    distance = torch.compile(CosineDistance(), backend='aot_eager')
    pair = vectors(3, 5), vectors(3, 5)
    found = torch.autograd.grad(distance(*pair).sum(), pair)
    torch.testing.assert_close(
        found, torch.autograd.grad(CosineDistance()(*pair).sum(), pair)
    )
