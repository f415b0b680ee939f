"""A model's weights come from just one place."""

from itertools import combinations

import pytest
import torch
from language_models import teacher_config
from tiny_llavas import save_language_model, save_tower

from mmtransmamba.models.language import HybridLlamaForCausalLM
from mmtransmamba.models.trainable.origin import LANGUAGE, VISION_LANGUAGE, Origin

PLACES = {
    'folder': dict(path='.'),
    'config': dict(config={}),
    'halves': dict(vision='.', language='.'),
}


@pytest.mark.parametrize('kind', [LANGUAGE, VISION_LANGUAGE])
@pytest.mark.parametrize(
    'places', [(), *combinations(PLACES, 2), tuple(PLACES)], ids='-'.join
)
def test_none_and_several_places_are_refused(kind, places):
    given = {k: v for place in places for k, v in PLACES[place].items()}
    with pytest.raises(ValueError, match='^Owner: give either path, a folder, or con'):
        Origin('Owner', kind, **given)


@pytest.mark.parametrize('half', ['vision', 'language'])
def test_one_half_is_refused(half):
    with pytest.raises(ValueError, match='or both vision and language'):
        Origin('Owner', VISION_LANGUAGE, **{half: '.'})


@pytest.mark.parametrize('place', ['path', 'processor', 'vision', 'language'])
def test_the_folder_that_is_missing_is_named(place):
    given = PLACES['halves'] if place in PLACES['halves'] else PLACES['folder']
    with pytest.raises(FileNotFoundError, match='Owner: no folder "no/folder"'):
        Origin('Owner', VISION_LANGUAGE, **(given | {place: 'no/folder'}))


@pytest.mark.parametrize('place', ['path', 'config'])
def test_models_are_converted_by_what_transfer_has_registered(tmp_path, place):
    folder = save_language_model(tmp_path / 'lm')
    given = dict(path=folder) if place == 'path' else dict(config=teacher_config())
    model, companions = Origin('Owner', LANGUAGE, convert={}, **given).build()
    assert isinstance(model, HybridLlamaForCausalLM)
    assert companions.folder == given.get('path')


def test_halves_make_a_model_with_the_processor_of_both(tmp_path):
    halves = dict(
        vision=save_tower(tmp_path / 'tower'),
        language=save_language_model(tmp_path / 'lm'),
    )
    models = []
    for seed in (1, 1, 2):
        model, companions = Origin(
            'Owner', VISION_LANGUAGE, seed=seed, **halves
        ).build()
        assert companions.folder is None
        assert companions.processor.image_token == '<image>'
        models.append(model.model.multi_modal_projector.linear_1.weight)
    assert torch.equal(models[0], models[1])
    assert not torch.equal(models[0], models[2])
