"""A term is switched off by its own name, or not at all."""

import pytest
from step_batches import TERMS, model_of
from tiny_distillers import DIRECTION, FEATURE, LAYER, LOGITS
from tiny_distillers import build as build_vision
from tiny_llavas import hybrid_llava

from mmtransmamba.models.trainable import VisionLanguageModel
from mmtransmamba.transfer import LanguageDistiller

VISION = dict(feature=FEATURE, logits=LOGITS, layer=LAYER, direction=DIRECTION)


def vision(terms):
    build_vision(terms)


def language(terms):
    model = model_of('kl')
    LanguageDistiller(model.student, model.teacher, terms)


def vision_language(terms, folder):
    hybrid_llava().save_pretrained(folder)
    LanguageDistiller(
        VisionLanguageModel(str(folder)), VisionLanguageModel(str(folder)), terms
    )


@pytest.mark.parametrize(
    ('wrong', 'right'),
    [
        ('featur', 'feature'),
        ('Feature', 'feature'),
        ('logit', 'logits'),
        ('layers', 'layer'),
        ('directions', 'direction'),
    ],
)
def test_a_vision_distiller_refuses_a_misspelt_term(wrong, right):
    with pytest.raises(ValueError, match=f"{wrong}=None.* did you mean '{right}'"):
        vision(VISION | {wrong: None})


@pytest.mark.parametrize(
    ('wrong', 'right'),
    [('hiden', 'hidden'), ('mixers', 'mixer'), ('tasks', 'task'), ('layr', 'layer')],
)
def test_language_distillers_refuse_a_misspelt_term(wrong, right, tmp_path):
    message = f"{wrong}=None.* did you mean '{right}'"
    with pytest.raises(ValueError, match=message):
        language(TERMS | {wrong: None})
    with pytest.raises(ValueError, match=message):
        vision_language(TERMS | {wrong: None}, tmp_path)


@pytest.mark.parametrize('build', [vision, language])
@pytest.mark.parametrize('terms', [dict(featur=None), dict(kl=None, layr=None)])
def test_a_name_alone_switches_nothing_off(build, terms):
    names = ', '.join(f'{name}=None' for name in terms)
    with pytest.raises(ValueError) as error:
        build(terms)
    assert f'{names}, which switches nothing off' in str(error.value)
    assert 'FeatureTerm' in str(error.value) and 'TokenKLTerm' in str(error.value)


def test_a_term_is_switched_off_by_its_own_name():
    vision(VISION | dict(feature=None))
    language(TERMS | dict(hidden=None, unrelated=None))
