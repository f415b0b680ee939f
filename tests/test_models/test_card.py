"""The model card beside a converted model."""

import re

import pytest
import torch
from language_models import make_hybrid, make_teacher
from tiny_encoders import ENCODERS, tiny_encoder
from tiny_llavas import hybrid_llava
from transformers import AutoConfig, AutoModelForSequenceClassification

import mmtransmamba
from mmtransmamba.models.card import (
    add_rows,
    has_card,
    read_card,
    read_rows,
    write_card,
)
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
        ('It is converted from `a b` with mmtransmamba.', dict(base_model='a b')),
        (CARD + 'It is converted from `a b` with mmtransmamba.', FOUND),
    ],
)
def test_simple_values_are_read(text, expected, tmp_path):
    (tmp_path / 'README.md').write_bytes(text.encode())
    assert read_card(tmp_path) == expected


def test_a_folder_may_have_no_card(tmp_path):
    assert read_card(tmp_path) == read_card(None) == {}
    assert read_rows(tmp_path) == read_rows(None) == {}
    assert not has_card(tmp_path)


def test_the_converter_writes_what_it_did_and_keeps_the_licence(tmp_path):
    teacher = tmp_path / 'teacher'
    make_teacher().save_pretrained(teacher)
    (teacher / 'README.md').write_text(CARD)
    ids = [torch.randint(3, 29, (4, 12)), torch.randint(3, 29, (2, 12))]
    asked = Conversion(layers=[0, 2], init='vkq', calibration=ids)
    plan = plan_conversion(teacher, asked)
    card = (write_model(plan, tmp_path / 'hybrid') / 'README.md').read_text()
    assert card.startswith('---\nlibrary_name: transformers\n')
    assert 'license: apache-2.0\n' in card and 'base_model: org/llama\n' in card
    assert '| layers | 2 of 3 converted: 0, 2 |' in card
    assert '| mixer | Mamba2 (' in card and 'norm=gated_per_head' in card
    assert '| history | init:vkq |' in card
    assert re.search(r'\n\| inherited \| [\d.]+ % of the values \|\n', card)
    assert f'\n| before training | {plan.proof} |\n' in card and plan.proof.kl > 0
    assert str(tmp_path) not in card


def test_heads_that_stay_attention_are_listed(tmp_path):
    mixers = {0: dict(attention_kv_heads=[0]), 2: dict(attention_kv_heads=[1])}
    hybrid = make_hybrid(
        make_teacher(), (0, 1, 2), mixer='HeadsKDA', layer_mixers=mixers
    )
    write_card(tmp_path, 'mine', hybrid.config, None, {})
    card = (tmp_path / 'README.md').read_text()
    for layer, head in ((0, 0), (2, 1)):
        kept = f'in layer {layer} HeadsKDA (attention in the key-value heads {head})'
        assert kept in card
    assert 'A hybrid of attention' in card
    assert 'layer 1 Heads' not in card


def test_without_a_teachers_folder_nothing_is_invented(tmp_path):
    hybrid = make_hybrid(make_teacher())
    write_card(tmp_path, 'mine', hybrid.config, None, {'val': '1.5'})
    card = (tmp_path / 'README.md').read_text()
    matter = card.split('---')[1]
    assert 'license' not in matter and 'base_model' not in matter
    assert 'converted from `a model`' in card and '| val | 1.5 |' in card


@pytest.mark.parametrize('given', ['org/llama', 'folder/of/llama', 'llama.gguf'])
def test_the_base_model_is_one_of_a_hub_or_only_in_the_text(given, tmp_path):
    """A hub refuses an upload whose card names another base model."""
    hybrid = make_hybrid(make_teacher())
    write_card(tmp_path, 'mine', hybrid.config, given)
    card = (tmp_path / 'README.md').read_text()
    name = given if given == 'org/llama' else given.rpartition('/')[2]
    assert f'converted from `{name}` with' in card
    assert ('base_model: org/llama\n' in card) == (given == 'org/llama')
    assert read_card(tmp_path) == dict(base_model=name)


def test_a_card_that_is_there_stays(tmp_path):
    (tmp_path / 'README.md').write_text('mine')
    write_card(tmp_path, 'x', make_teacher().config, None)
    assert (tmp_path / 'README.md').read_text() == 'mine'
    write_card(tmp_path, 'x', make_teacher().config, None, replace=True)
    assert has_card(tmp_path)


@pytest.mark.parametrize(
    'layer_mixers, row',
    [({}, 'Plain'), ({'1': {'type': 'KDA'}}, 'Plain, in layer 1 KDA')],
)
def test_a_mixer_without_fields_is_named(layer_mixers, row, tmp_path):
    config = make_hybrid(make_teacher()).config
    config.mixer, config.layer_mixers = {'type': 'Plain'}, layer_mixers
    write_card(tmp_path, 'mine', config, None)
    assert f'\n| mixer | {row} |\n' in (tmp_path / 'README.md').read_text()


def test_rows_are_added_and_replaced(tmp_path):
    config = make_hybrid(make_teacher()).config
    write_card(tmp_path, 'mine', config, None, {'kl': '1', 'data': '`a.jsonl`'})
    before = (tmp_path / 'README.md').read_text()
    add_rows(tmp_path, {'kl': '2', 'piqa, acc': '51 %'})
    after = (tmp_path / 'README.md').read_text()
    assert after == before.replace('| kl | 1 |', '| kl | 2 |').replace(
        '| data | `a.jsonl` |\n', '| data | `a.jsonl` |\n| piqa, acc | 51 % |\n'
    )
    assert read_rows(tmp_path) == {
        'kl': '2',
        'data': '`a.jsonl`',
        'piqa, acc': '51 %',
    }


def test_a_card_of_others_is_not_changed(tmp_path):
    (tmp_path / 'README.md').write_text(CARD)
    with pytest.raises(ValueError, match='no README.md that mmtransmamba wrote'):
        add_rows(tmp_path, {'kl': '2'})
    assert read_rows(tmp_path) == {}


def converted_encoder(name):
    return mmtransmamba.convert(tiny_encoder(name), layers=[0])[0]


def sequence_classifier(name):
    config = make_hybrid(make_teacher()).config
    return AutoModelForSequenceClassification.from_config(config)


SAVED = {name: converted_encoder for name in ENCODERS} | {
    'a language model': lambda name: make_hybrid(make_teacher()),
    'a classifier of texts': sequence_classifier,
    'a LLaVA': lambda name: hybrid_llava(),
}


@pytest.mark.parametrize('name', SAVED)
def test_the_code_in_a_card_loads_the_model(name, tmp_path, monkeypatch):
    model = SAVED[name](name)
    model.save_pretrained(tmp_path / 'mine')
    card = (tmp_path / 'mine' / 'README.md').read_text()
    code = re.search(r'```python\n(.*?)\n```', card, re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    loaded = names['model']
    assert type(loaded) is type(model)
    for key, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[key])
    assert ('tools/export_lm.py' in card) == (name == 'a language model')
    assert ('mmtransmamba.export(model' in card) == (name in ENCODERS)


def test_saving_writes_the_card_of_the_conversion(tmp_path):
    make_teacher().save_pretrained(tmp_path / 'teacher')
    (tmp_path / 'teacher' / 'README.md').write_text(CARD)
    hybrid = make_hybrid(tmp_path / 'teacher')
    hybrid.save_pretrained(tmp_path / 'hybrid')
    card = (tmp_path / 'hybrid' / 'README.md').read_text()
    assert card.split('---')[1].count('org/llama') == 1 and '# hybrid\n' in card
    assert '| history | init:mimic |' in card and '| inherited | ' in card
    hybrid.save_pretrained(tmp_path / 'other', is_main_process=False)
    assert not (tmp_path / 'other' / 'README.md').exists()


def test_a_teacher_in_memory_is_named_as_on_its_hub(tmp_path):
    teacher = make_teacher()
    teacher.name_or_path = 'org/llama'
    make_hybrid(teacher).save_pretrained(tmp_path)
    assert 'base_model: org/llama\n' in (tmp_path / 'README.md').read_text()


def test_a_loaded_model_is_saved_with_the_facts_of_its_folder(tmp_path):
    make_hybrid(make_teacher()).save_pretrained(tmp_path / 'first')
    add_rows(tmp_path / 'first', {'kl': '0.5'})
    loaded = mmtransmamba.load(tmp_path / 'first')
    loaded.config.transfer_history.append('tuned')
    loaded.save_pretrained(tmp_path / 'second')
    card = (tmp_path / 'second' / 'README.md').read_text()
    assert '| history | init:mimic, tuned |' in card and '| kl | 0.5 |' in card
    assert '| figures | those above are of `first`, from which this model' in card
    assert str(tmp_path) not in card
    # A Transformer of others is named, and its card is not copied.
    assert AutoConfig.from_pretrained(tmp_path / 'second').mamba_layers == [0, 2]
