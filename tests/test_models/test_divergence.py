"""The divergence of logits, classes that a teacher rules out included."""

import pytest
import torch
import torch.nn.functional as F

from mmtransmamba.models.divergence import DIVERGENCES, Divergence, kl_of_logits
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


# ------------------------------------------------------- reverse KL and Jensen-Shannon

BETAS = [('forward_kl', None), ('reverse_kl', None), ('jsd', None), ('jsd', 0.1)]


def closed_form(kind, beta, p, q):
    """The definitions, of probabilities in float64."""

    def kl(a, b):
        return torch.special.xlogy(a, a / b).nan_to_num(0).sum(-1)

    if kind != 'jsd':
        return kl(p, q) if kind == 'forward_kl' else kl(q, p)
    beta = 0.5 if beta is None else beta
    mixture = beta * p + (1 - beta) * q
    return beta * kl(p, mixture) + (1 - beta) * kl(q, mixture)


@pytest.mark.parametrize('temperature', [0.5, 1.0, 4.0])
@pytest.mark.parametrize('kind, beta', BETAS)
def test_divergences_are_their_closed_forms(kind, beta, temperature):
    student, teacher = logits().double().requires_grad_(), logits(seed=1).double()
    found = Divergence(kind, temperature, beta)(student, teacher)
    p, q = ((x / temperature).softmax(-1) for x in (teacher, student))
    expected = temperature**2 * closed_form(kind, beta, p, q)
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(found.sum(), student, retain_graph=True)
    (wanted,) = torch.autograd.grad(expected.sum(), student)
    torch.testing.assert_close(gradient, wanted)


@pytest.mark.parametrize('kind, beta', BETAS)
def test_two_classes_by_hand(kind, beta):
    """p = (1/2, 1/2), q = (1/4, 3/4)."""
    log = torch.log
    p, q = torch.tensor([0.5, 0.5]).double(), torch.tensor([0.25, 0.75]).double()
    by_hand = {
        ('forward_kl', None): 0.5 * log(torch.tensor(4 / 3)),
        ('reverse_kl', None): 0.75 * log(torch.tensor(3.0)) - log(torch.tensor(2.0)),
        # m = (3/8, 5/8) and (0.275, 0.725).
        ('jsd', None): torch.tensor(
            0.25 * (0.2876821 - 0.2231436)
            + 0.5 * (-0.25 * 0.4054651 + 0.75 * 0.1823216)
        ),
        ('jsd', 0.1): torch.tensor(
            0.1 * 0.5 * (0.5978370 - 0.3715636)
            + 0.9 * (-0.25 * 0.0953102 + 0.75 * 0.0339016)
        ),
    }[kind, beta]
    found = Divergence(kind, beta=beta)(q.log(), p.log())
    assert found.item() == pytest.approx(by_hand.item(), abs=1e-6)


@pytest.mark.parametrize('lowest', LOWEST)
def test_jsd_is_bounded_and_finite_where_one_side_is_impossible(lowest):
    teacher, student = logits(seed=1), logits()
    teacher[:, 0] = LOWEST[lowest]
    student[:, 1] = LOWEST[lowest]
    teacher[:, 2] = student[:, 2] = LOWEST[lowest]
    student.requires_grad_()
    found = Divergence('jsd')(student, teacher)
    found.sum().backward()
    assert (found > 0).all() and (found < torch.tensor(2.0).log()).all()
    assert student.grad.isfinite().all() and student.grad.any()
    swapped = Divergence('jsd')(teacher, student.detach())
    torch.testing.assert_close(swapped, found.detach())


@pytest.mark.parametrize('kind', DIVERGENCES)
def test_equal_distributions_have_no_divergence(kind):
    student = logits().requires_grad_()
    found = Divergence(kind, 2.0)(student, student.detach() + 5)
    found.sum().backward()
    assert found.abs().max() < 1e-5 and student.grad.abs().max() < 1e-5


@pytest.mark.parametrize('kind', DIVERGENCES)
def test_a_silent_teacher_says_nothing_in_any_divergence(kind):
    student = logits().requires_grad_()
    found = Divergence(kind)(student, torch.full((3, 6), -torch.inf))
    found.sum().backward()
    assert not found.any() and not student.grad.any()


def test_reverse_kl_is_infinite_where_only_the_teacher_rules_out():
    teacher = logits(seed=1)
    teacher[0, 0] = -torch.inf
    found = Divergence('reverse_kl')(logits(), teacher)
    assert found[0] == torch.inf and found[1:].isfinite().all()


@pytest.mark.parametrize(
    'fields, message',
    [
        (dict(kind='kl'), "divergence='kl' must be one of forward_kl, reverse_kl, jsd"),
        (dict(temperature=0), 'temperature=0 must be greater than 0'),
        (dict(temperature=float('nan')), 'temperature=nan must be greater than 0'),
        (dict(beta=0.5), "beta=0.5 has no effect on divergence='forward_kl'"),
        (dict(kind='jsd', beta=0), 'beta=0 must lie between 0 and 1'),
        (dict(kind='jsd', beta=1.0), 'beta=1.0 must lie between 0 and 1'),
    ],
)
def test_unknown_divergences_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Divergence(**fields)
