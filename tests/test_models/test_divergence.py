"""The divergence of logits, classes that a teacher rules out included."""

import pytest
import torch
import torch.nn.functional as F

from mmtransmamba.models.divergence import kl_of_logits
from mmtransmamba.transfer.losses import kl_divergence

LOWEST = dict(
    minus_inf=float('-inf'),
    fp16_min=torch.finfo(torch.float16).min,
    bf16_min=torch.finfo(torch.bfloat16).min,
    fp32_min=torch.finfo(torch.float32).min,
)


def logits(rows=3, classes=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(rows, classes, generator=generator)


@pytest.mark.parametrize('temperature', [0.5, 1.0, 4.0])
def test_is_the_sum_of_the_definition(temperature):
    student, teacher = logits(), logits(seed=1)
    p = (teacher / temperature).double().softmax(-1)
    q = (student / temperature).double().softmax(-1)
    expected = temperature**2 * (p * (p.log() - q.log())).sum(-1)
    torch.testing.assert_close(
        kl_of_logits(student, teacher, temperature), expected.float()
    )
    torch.testing.assert_close(
        kl_divergence(student, teacher, temperature), expected.mean().float()
    )


@pytest.mark.parametrize('student_too', [False, True])
@pytest.mark.parametrize('temperature', [0.5, 1.0, 4.0])
@pytest.mark.parametrize('lowest', LOWEST)
def test_a_ruled_out_class_adds_nothing(lowest, temperature, student_too):
    """The rest is as without it, if the student rules it out as well."""
    out = torch.zeros(6, dtype=torch.bool)
    out[[1, 4]] = True
    teacher = logits(seed=1).masked_fill(out, LOWEST[lowest])
    student = logits()
    if student_too:
        student = student.masked_fill(out, LOWEST[lowest])
    student.requires_grad_()
    found = kl_of_logits(student, teacher, temperature)
    found.sum().backward()

    p = (teacher / temperature).double()[:, ~out].softmax(-1)
    q = (student.detach() / temperature).double().log_softmax(-1)
    expected = temperature**2 * (p * (p.log() - q[:, ~out])).sum(-1)
    torch.testing.assert_close(found.detach(), expected.float())
    gradient = torch.zeros_like(q)
    gradient[:, ~out] = -p
    expected_gradient = temperature * (q.exp() + gradient)
    torch.testing.assert_close(student.grad, expected_gradient.float())


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
def test_only_the_most_likely_tokens_are_left(dtype):
    """A teacher whose logits are -inf but for its top k."""
    teacher = logits(classes=40, seed=1)
    kept = teacher.topk(3, dim=-1)
    teacher = torch.full_like(teacher, -torch.inf).scatter(-1, kept.indices, kept[0])
    student = logits(classes=40).to(dtype).requires_grad_()
    kl = kl_of_logits(student, teacher.to(dtype))
    kl.sum().backward()
    assert kl.isfinite().all() and (kl > 0).all()
    assert student.grad.isfinite().all() and student.grad.any()


def test_a_teacher_that_rules_everything_out_says_nothing():
    teacher = logits(seed=1)
    teacher[1] = -torch.inf
    student = logits().requires_grad_()
    kl = kl_of_logits(student, teacher)
    kl.sum().backward()
    rest = kl_of_logits(student.detach()[[0, 2]], teacher[[0, 2]])
    assert torch.equal(kl.detach()[[0, 2]], rest) and kl[1] == 0
    assert not student.grad[1].any() and student.grad[[0, 2]].any()


def test_faults_are_not_hidden():
    teacher = logits(seed=1)
    teacher[0, 0], teacher[1, 0] = torch.nan, torch.inf
    student = logits()
    student[2, 0] = -torch.inf  # ruled out by the student alone
    kl = kl_of_logits(student, teacher)
    assert kl[:2].isnan().all() and kl[2] == torch.inf


def test_gradient_is_that_of_the_library_function():
    student, other = (logits().requires_grad_() for _ in range(2))
    teacher = logits(seed=1)
    kl_of_logits(student, teacher, 2.0).mean().backward()
    F.kl_div(
        (other / 2).log_softmax(-1), (teacher / 2).softmax(-1), reduction='batchmean'
    ).mul(4).backward()
    torch.testing.assert_close(student.grad, other.grad)
