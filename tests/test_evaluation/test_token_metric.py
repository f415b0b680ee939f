"""The metric of language models, against its definition."""

import math

import pytest
import torch
from torch.nn import functional as F

from mmtransmamba.evaluation import TokenMetric
from mmtransmamba.models.token_losses import score_tokens
from mmtransmamba.registry import METRICS


@pytest.fixture
def batch():
    torch.manual_seed(0)
    labels = torch.randint(0, 11, (3, 9))
    labels[0, :5] = -100
    labels[2, 7:] = -100
    return 2 * torch.randn(3, 9, 11), labels, 2 * torch.randn(3, 9, 11)


def evaluate(*scores):
    metric = TokenMetric()
    for score in scores:
        metric.process(None, score)
    return metric.evaluate(sum(len(score) for score in scores))


def test_every_token_counts_once(batch):
    logits, labels, teacher = batch
    halves = [
        score_tokens(part[0], part[1], part[2])
        for part in ([x[:1] for x in batch], [x[1:] for x in batch])
    ]
    found = evaluate(*halves)
    valid = labels[:, 1:] != -100
    s, t = (x[:, :-1][valid].log_softmax(-1) for x in (logits, teacher))
    targets = labels[:, 1:][valid]
    nll = -s.gather(1, targets[:, None]).mean()
    assert found['token/nll'] == pytest.approx(nll.item(), rel=1e-5)
    assert found['token/ppl'] == pytest.approx(math.exp(nll), rel=1e-5)
    kl = (t.exp() * (t - s)).sum(-1).mean()
    assert found['token/kl'] == pytest.approx(kl.item(), rel=1e-4)
    accuracy = (s.argmax(-1) == targets).float().mean()
    assert found['token/accuracy'] == pytest.approx(100 * accuracy.item())
    agreement = (s.argmax(-1) == t.argmax(-1)).float().mean()
    assert found['token/agreement'] == pytest.approx(100 * agreement.item())


def test_the_teacher_agrees_with_itself(batch):
    logits, labels, _ = batch
    found = evaluate(score_tokens(logits, labels, logits.clone()))
    assert found['token/kl'] == pytest.approx(0, abs=1e-6)
    assert found['token/agreement'] == 100


def test_without_a_teacher(batch):
    logits, labels, _ = batch
    found = evaluate(score_tokens(logits, labels))
    assert set(found) == {'token/nll', 'token/ppl', 'token/accuracy'}


def test_agrees_with_transformers_loss(batch):
    logits, labels, _ = batch
    found = evaluate(score_tokens(logits, labels))
    expected = F.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:])
    assert found['token/nll'] == pytest.approx(expected.item(), rel=1e-5)


def test_nothing_is_predicted_from_padding(batch):
    logits, labels, _ = batch
    labels = labels.clamp_min(0)
    mask = torch.ones_like(labels)
    mask[:, :3] = 0
    expected = evaluate(score_tokens(logits[:, 3:], labels[:, 3:]))
    assert evaluate(score_tokens(logits, labels, mask=mask)) == expected


def test_nothing_to_predict():
    scores = score_tokens(torch.randn(1, 4, 5), torch.full((1, 4), -100))
    with pytest.raises(ValueError, match='not one token is predicted'):
        evaluate(scores)


def test_a_hopeless_model_is_no_error():
    scores = [dict(tokens=1, nll=2000.0, correct=0)]
    assert math.isfinite(evaluate(scores)['token/ppl'])


def test_registered():
    assert METRICS.get('mmtransmamba.TokenMetric') is TokenMetric


def test_no_text():
    with pytest.raises(ValueError, match='not one token is predicted'):
        TokenMetric().compute_metrics([])
