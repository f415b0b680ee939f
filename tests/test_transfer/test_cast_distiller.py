"""Distillers whose weights were cast, as strategies for large models do."""

import pytest
import torch
from language_models import make_hybrid, make_teacher, tokens
from tiny_distillers import ADAPTIVE, DIRECTION, FEATURE, LAYER, LOGITS, batch
from tiny_distillers import build as build_vision

from mmtransmamba.transfer import LanguageDistiller

CASTS = dict(
    half=lambda model: model.half(),
    bfloat16=lambda model: model.bfloat16(),
    to_bfloat16=lambda model: model.to(torch.bfloat16),
    double=lambda model: model.double(),
    there_and_back=lambda model: model.bfloat16().float(),
)


@pytest.mark.parametrize('cast', CASTS)
def test_vision_distiller_trains_after_a_cast(cast):
    terms = dict(
        logits=LOGITS,
        feature=FEATURE,
        layer=LAYER | dict(weighting=ADAPTIVE),
        direction=DIRECTION,
    )
    exact = build_vision(terms)
    distiller = CASTS[cast](build_vision(terms))
    losses = distiller(*batch(), mode='loss')
    total, _ = distiller.parse_losses(losses)
    total.backward()
    for name, expected in exact(*batch(), mode='loss').items():
        assert losses[name].item() == pytest.approx(expected.item(), rel=0.1, abs=0.02)
    dtype = next(distiller.student.parameters()).dtype
    assert distiller.teacher.dtype == dtype
    assert {p.grad.dtype for p in distiller.student.parameters()} == {dtype}
    learned = {p.dtype for p in distiller.terms.parameters()}
    assert learned == {torch.float64 if cast == 'double' else torch.float32}
    assert distiller(*batch(), mode='predict')[0].pred_score.isfinite().all()


def test_what_a_teacher_normalises_by_stays_exact():
    distiller = build_vision(dict(logits=LOGITS))
    teacher = distiller.teacher
    teacher.mean.add_(0.675)
    mean, std = teacher.mean.clone(), teacher.std.clone()
    distiller.bfloat16().float()
    assert torch.equal(teacher.mean, mean) and torch.equal(teacher.std, std)


@pytest.mark.parametrize('cast', CASTS)
def test_language_distiller_trains_after_a_cast(cast):
    teacher = make_teacher()
    terms = dict(
        kl=dict(type='mmtransmamba.TokenKLTerm'),
        mixer=dict(type='mmtransmamba.MixerOutputTerm'),
        layer=dict(type='mmtransmamba.ForcedLayerTerm'),
        hidden=dict(
            type='mmtransmamba.HiddenStatesTerm',
            weighting=dict(type='mmtransmamba.AdaptiveWeighting', hidden_dim=8),
        ),
    )
    distiller = LanguageDistiller(make_hybrid(teacher), teacher, terms)
    exact = {k: v.item() for k, v in distiller(**tokens(), mode='loss').items()}
    losses = CASTS[cast](distiller)(**tokens(), mode='loss')
    total, _ = distiller.parse_losses(losses)
    total.backward()
    for name, expected in exact.items():
        assert losses[name].item() == pytest.approx(expected, rel=0.15, abs=0.05)
