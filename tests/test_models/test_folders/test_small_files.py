"""Folders of models whose small files are not as they should be."""

import json

import pytest
from language_models import make_teacher

from mmtransmamba.models.checkpoint import CheckpointError
from mmtransmamba.models.folders import is_vision_language, load_lm
from mmtransmamba.models.folders.sources import open_folder
from mmtransmamba.transfer.convert import (
    Conversion,
    plan_conversion,
    rank_layers,
    read_calibration,
)
from mmtransmamba.utils.processors import load_processor, load_tokenizer


@pytest.fixture
def folder(tmp_path):
    make_teacher('llama').save_pretrained(tmp_path / 'teacher')
    return tmp_path / 'teacher'


READERS = [is_vision_language, load_lm, plan_conversion]


@pytest.mark.parametrize('read', READERS)
@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('[]', r'config\.json is not a config of a model: it holds \[\]'),
        ('{}', r'config\.json is not a config of a model: it holds \{\}'),
        ('"llama"', r'config\.json is not a config of a model: it holds llama'),
        ('{"a": ', r'config\.json'),
    ],
)
def test_a_config_that_is_none(folder, read, content, message):
    (folder / 'config.json').write_text(content)
    with pytest.raises(ValueError, match=message):
        read(folder)


@pytest.mark.parametrize('size', [0, -1, 2.5, 'two'])
@pytest.mark.parametrize('name', ['num_attention_heads', 'hidden_size'])
def test_a_size_that_counts_nothing(folder, name, size):
    path = folder / 'config.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: size}))
    with pytest.raises(ValueError, match=f'{name}={size!r} must be a whole number'):
        load_lm(folder)


def test_a_size_among_the_fields_that_counts_nothing(folder):
    with pytest.raises(ValueError, match='^num_attention_heads=0 must be a whole'):
        plan_conversion(folder, Conversion.of(num_attention_heads=0))


def test_a_folder_without_config(tmp_path):
    with pytest.raises(FileNotFoundError, match='has no config.json'):
        load_lm(tmp_path)


@pytest.mark.parametrize('content', ['{}', '[]', '{"weight_map": {"a": 1}}', '3'])
def test_an_index_that_is_none(folder, content):
    index = folder / 'model.safetensors.index.json'
    index.write_text(content)
    with pytest.raises(CheckpointError, match=f'{index} is not an index of shards'):
        open_folder(folder)


@pytest.mark.parametrize('load', [load_tokenizer, load_processor])
def test_the_folder_without_tokenizer_is_named_in_one_line(folder, load):
    with pytest.raises(ValueError, match=f'can be read from "{folder}": ') as error:
        load(folder)
    assert '\n' not in str(error.value) and len(str(error.value)) < 400


def test_calibration_on_text_needs_the_tokenizer(folder, tmp_path):
    (tmp_path / 'text.txt').write_text('Once upon a time.')
    with pytest.raises(ValueError, match=f'No tokenizer can be read from "{folder}"'):
        read_calibration(tmp_path / 'text.txt', folder)


def test_calibration_ids_are_those_of_the_teacher():
    import torch

    teacher = make_teacher('llama')
    size = teacher.config.vocab_size
    for wrong in (size, -1):
        ids = torch.tensor([[1, wrong, 2]])
        with pytest.raises(ValueError, match=f'id {wrong}; .* ids 0 to {size - 1}'):
            rank_layers(teacher, [ids])
