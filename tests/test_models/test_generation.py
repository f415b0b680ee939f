"""Generation settings that could not be saved."""

import pytest
import torch
from tiny_decoders import tiny_teacher
from tiny_llavas import save_language_model, save_tower
from tiny_vlms import tiny_processor
from transformers import AutoModelForCausalLM, GenerationConfig

from mmtransmamba.models.folders import assemble_llava, assemble_patch_decoder
from mmtransmamba.models.generation import repair_generation_config
from mmtransmamba.models.multimodal.reasoning_tags import add_reasoning_tags
from mmtransmamba.models.trainable import CausalLM, VisionLanguageModel
from mmtransmamba.transfer.convert import convert

VICUNA = dict(temperature=0.9, top_p=0.6)


def spoil(folder, **settings):
    """Give a folder generation settings that ``save_pretrained`` refuses."""
    config = GenerationConfig.from_pretrained(folder)
    config.update(**settings)
    config.to_json_file(f'{folder}/generation_config.json')
    return folder


@pytest.fixture
def vicuna(tmp_path):
    """A language model with its tokenizer and settings as Vicuna's."""
    return spoil(save_language_model(tmp_path / 'lm'), **VICUNA)


def saved(model, folder):
    model.save_pretrained(folder)
    return GenerationConfig.from_pretrained(folder)


@pytest.mark.parametrize(
    'settings, kept, dropped',
    [
        (VICUNA, dict(do_sample=True, **VICUNA), []),
        (dict(top_k=5), dict(do_sample=True, top_k=5), []),
        (dict(min_p=0.1), dict(do_sample=True), []),
        (dict(typical_p=0.5), dict(do_sample=True), []),
        (dict(epsilon_cutoff=0.1), dict(do_sample=True), []),
        (dict(eta_cutoff=0.1), dict(do_sample=True), []),
        (dict(temperature=0.0), dict(do_sample=True), []),
        # Whoever says so does not sample.
        (dict(do_sample=False, **VICUNA), dict(do_sample=False), list(VICUNA)),
        (dict(length_penalty=2.0), {}, ['length_penalty']),
        (dict(early_stopping=True), {}, ['early_stopping']),
        (dict(num_beams=2, length_penalty=2.0), dict(length_penalty=2.0), []),
        (dict(output_scores=True), {}, ['output_scores']),
        (
            dict(use_cache=False, cache_implementation='static'),
            {},
            ['cache_implementation'],
        ),
        (dict(pad_token_id=-1), {}, ['pad_token_id']),
        (dict(eos_token_id=[7, 9], repetition_penalty=1.2), {}, []),
    ],
)
def test_contradictions_are_repaired(tmp_path, settings, kept, dropped):
    model = tiny_teacher()
    model.generation_config.update(**settings)
    done = repair_generation_config(model)
    assert bool(done) == (bool(dropped) or 'do_sample' in kept)
    found = saved(model, tmp_path)
    for name, value in kept.items():
        assert getattr(found, name) == value
    for name in dropped:
        assert any(f'no {name}' in line for line in done)
    assert repair_generation_config(model) == []


def test_the_repaired_settings_would_have_failed(tmp_path):
    model = tiny_teacher()
    model.generation_config.update(pad_token_id=0, **VICUNA)
    with pytest.raises(ValueError, match='top_p'):
        model.save_pretrained(tmp_path)


@pytest.mark.parametrize(
    'settings, message',
    [(dict(num_return_sequences=3), 'num_return_sequences'),
     (dict(max_new_tokens=0), 'max_new_tokens'),
     (dict(cache_implementation='none'), 'cache_implementation')],
)  # fmt: skip
def test_what_cannot_be_repaired_is_named(settings, message):
    model = tiny_teacher()
    for name, value in settings.items():  # update() would refuse them at once
        setattr(model.generation_config, name, value)
    expected = rf'generation_config of \w+ could not be saved: .*{message}'
    with pytest.raises(ValueError, match=expected):
        repair_generation_config(model)
    with pytest.raises(ValueError, match=expected):
        convert(model)


def test_assembled_llava(vicuna, tmp_path):
    tower = save_tower(tmp_path / 'tower')
    model, _ = assemble_llava(tower, vicuna)
    found = saved(model, tmp_path / 'out')
    assert (found.do_sample, found.temperature, found.top_p) == (True, 0.9, 0.6)


def test_a_model_to_train_of_two_folders(vicuna, tmp_path):
    model = VisionLanguageModel(vision=save_tower(tmp_path / 'tower'), language=vicuna)
    assert saved(model.lm, tmp_path / 'out').temperature == 0.9


def test_a_language_model_to_train(vicuna, tmp_path):
    model = CausalLM(path=vicuna)
    model.lm.generation_config.pad_token_id = 0
    assert saved(model.lm, tmp_path / 'out').top_p == 0.6


@pytest.mark.parametrize('as_folder', [True, False])
def test_patch_decoder(vicuna, tmp_path, as_folder):
    language = vicuna if as_folder else AutoModelForCausalLM.from_pretrained(vicuna)
    model = assemble_patch_decoder(language, holistic=0, image_size=32, patch_size=16)
    assert saved(model, tmp_path / 'out').temperature == 0.9


@pytest.mark.parametrize('as_folder', [True, False])
def test_converted_language_model(vicuna, tmp_path, as_folder):
    teacher = vicuna if as_folder else AutoModelForCausalLM.from_pretrained(vicuna)
    model, _ = convert(teacher)
    assert saved(model, tmp_path / 'out').temperature == 0.9
    # Neither is the teacher changed, nor do they share the settings.
    if not as_folder:
        assert teacher.generation_config.do_sample is None


def test_reasoning_tags(tmp_path):
    processor = tiny_processor()
    torch.manual_seed(0)
    model = tiny_teacher(vocab_size=len(processor.tokenizer))
    model.generation_config.update(**VICUNA)
    add_reasoning_tags(model, processor)
    assert saved(model, tmp_path).temperature == 0.9
