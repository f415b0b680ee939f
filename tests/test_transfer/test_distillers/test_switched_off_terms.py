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
    of_images, of_text = (name in str(error.value) for name in ('FeatureT', 'TokenKL'))
    assert (of_images, of_text) == (build is vision, build is language)


def test_a_term_is_switched_off_by_its_own_name():
    vision(VISION | dict(feature=None))
    language(TERMS | dict(hidden=None, unrelated=None))


@pytest.mark.parametrize(
    ('on', 'off'),
    [
        *(('kl', 'kl2'), ('kl_1', 'kl_2'), ('hidden1', 'hidden2'), ('kl', 'kl_long')),
        *(('hidden_early', 'hidden_late'), ('kl_student', 'kl_teacher'), ('kl2', 'kl')),
    ],
)
def test_one_of_several_of_a_kind_is_switched_off(on, off):
    language({on: TERMS['kl'], off: None})


@pytest.mark.parametrize(
    ('on', 'off'),
    [('hidden_states', 'hidden_state'), ('layer_kl', 'layr_kl'), ('kl_2', 'k_2')],
)
def test_a_word_of_several_is_misspelt(on, off):
    with pytest.raises(ValueError, match=f"{off}=None.* did you mean '{on}'"):
        language({on: TERMS['kl'], off: None})
