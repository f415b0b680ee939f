"""The model card beside a converted model."""

import pytest
from language_models import make_hybrid, make_teacher

from mmtransmamba.models.folders.card import read_card, write_card
from mmtransmamba.transfer.convert import Conversion, plan_conversion, write_model

CARD = """---
license: "apache-2.0"
base_model: org/llama
tags:
- chat
---
# A teacher
"""


FOUND = dict(license='apache-2.0', base_model='org/llama')


@pytest.mark.parametrize(
    'text, expected',
    [
        (CARD, FOUND),
        (CARD.replace('\n', '\r\n'), FOUND),
        ('# No front matter\nlicense: mit\n', {}),
        ('---\nlicense:\n- mit\n---\n', {}),
        ('---\nlicense: mit\n', {}),
        ('', {}),
    ],
)
def test_simple_values_are_read(text, expected, tmp_path):
    (tmp_path / 'README.md').write_bytes(text.encode())
    assert read_card(tmp_path) == expected


def test_a_folder_may_have_no_card(tmp_path):
    assert read_card(tmp_path) == read_card(None) == {}


def test_the_converter_writes_what_it_did_and_keeps_the_licence(tmp_path):
    teacher = tmp_path / 'teacher'
    make_teacher().save_pretrained(teacher)
    (teacher / 'README.md').write_text(CARD)
    plan = plan_conversion(teacher, Conversion(layers=[0, 2], init='vkq'))
    card = (write_model(plan, tmp_path / 'hybrid') / 'README.md').read_text()
    assert card.startswith('---\nlibrary_name: transformers\n')
    assert 'license: apache-2.0\n' in card and 'base_model: org/llama\n' in card
    assert '| layers | 2 of 3 converted: 0, 2 |' in card
    assert '| mixer | Mamba2 (' in card and 'norm=gated_per_head' in card
    assert '| history | init:vkq |' in card
    assert '| inherited | ' in card
    assert str(tmp_path) not in card


def test_without_a_teachers_folder_nothing_is_invented(tmp_path):
    hybrid = make_hybrid(make_teacher())
    write_card(tmp_path, 'mine', hybrid.config, None, {'val': '1.5'})
    card = (tmp_path / 'README.md').read_text()
    assert 'license' not in card.split('---')[1]
    assert 'converted from `a model`' in card and '| val | 1.5 |' in card


def test_a_card_that_is_there_stays(tmp_path):
    (tmp_path / 'README.md').write_text('mine')
    write_card(tmp_path, 'x', make_teacher().config, None)
    assert (tmp_path / 'README.md').read_text() == 'mine'


@pytest.mark.parametrize(
    'layer_mixers, row',
    [({}, 'Plain'), ({'1': {'type': 'KDA'}}, 'Plain, in layer 1 KDA')],
)
def test_a_mixer_without_fields_is_named(layer_mixers, row, tmp_path):
    config = make_hybrid(make_teacher()).config
    config.mixer, config.layer_mixers = {'type': 'Plain'}, layer_mixers
    write_card(tmp_path, 'mine', config, None)
    assert f'\n| mixer | {row} |\n' in (tmp_path / 'README.md').read_text()
