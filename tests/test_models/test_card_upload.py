"""Uploads to a hub, which is replaced here by a record of what it gets."""

from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.errors import EntryNotFoundError
from language_models import make_hybrid, make_teacher
from tiny_encoders import tiny_encoder

import mmtransmamba
from mmtransmamba.models.card import add_rows


@pytest.fixture
def hub(monkeypatch):
    """The uploaded files by name; ``hub.card`` is what the hub has already."""
    hub = SimpleNamespace(files={}, card=None, asked=[])
    load = huggingface_hub.ModelCard.load.__func__

    def create_repo(self, repo_id, **kwargs):
        return SimpleNamespace(repo_id=f'me/{repo_id.rpartition("/")[2]}')

    def file_exists(self, repo_id, filename, **kwargs):
        hub.asked.append((repo_id, filename, kwargs.get('token')))
        return hub.card is not None

    def load_card(cls, name, **kwargs):
        if str(name) != 'me/hybrid':
            return load(cls, name, **kwargs)
        if hub.card is None:
            raise EntryNotFoundError('no README.md')
        return huggingface_hub.ModelCard(hub.card)

    def create_commit(self, repo_id, operations, **kwargs):
        for each in operations:
            with open(each.path_or_fileobj, 'rb') as file:
                hub.files[each.path_in_repo] = file.read()
        return repo_id

    monkeypatch.setattr(huggingface_hub.HfApi, 'create_repo', create_repo)
    monkeypatch.setattr(huggingface_hub.HfApi, 'file_exists', file_exists)
    monkeypatch.setattr(huggingface_hub.HfApi, 'create_commit', create_commit)
    monkeypatch.setattr(huggingface_hub.ModelCard, 'load', classmethod(load_card))
    return hub


MODELS = {
    'language': lambda: make_hybrid(make_teacher()),
    'encoder': lambda: mmtransmamba.convert(tiny_encoder('ViTModel'), layers=[0])[0],
    'encoder with a head': lambda: mmtransmamba.convert(
        tiny_encoder('ViTForImageClassification'), layers=[0]
    )[0],
}


@pytest.mark.parametrize('kind', MODELS)
def test_a_model_is_pushed_with_its_card(kind, hub):
    MODELS[kind]().push_to_hub('hybrid', token='mine', tags=['small'])
    assert {'README.md', 'config.json', 'model.safetensors'} <= set(hub.files)
    card = hub.files['README.md'].decode()
    assert 'tags: [mmtransmamba, hybrid, small]\n' in card
    assert '# me/hybrid\n' in card and ".from_pretrained('me/hybrid')" in card
    assert '| history | init:mimic |' in card and '| inherited | ' in card
    assert 'automatically generated' not in card
    assert hub.asked == [('me/hybrid', 'README.md', 'mine')]


def test_saving_can_push(hub, tmp_path):
    make_hybrid(make_teacher()).save_pretrained(tmp_path / 'hybrid', push_to_hub=True)
    card = hub.files['README.md'].decode()
    assert '# me/hybrid\n' in card and '| history | init:mimic |' in card


def test_a_card_on_the_hub_is_kept(hub):
    hub.card = '---\nlicense: mit\n---\n# Ours\n'
    make_hybrid(make_teacher()).push_to_hub('hybrid')
    assert b'# Ours' in hub.files['README.md']
    assert b'mmtransmamba' not in hub.files['README.md']


def test_a_loaded_model_is_pushed_with_the_card_of_its_folder(hub, tmp_path):
    make_hybrid(make_teacher()).save_pretrained(tmp_path / 'mine')
    mmtransmamba.load(tmp_path / 'mine').push_to_hub('me/hybrid')
    card = hub.files['README.md'].decode()
    assert '| inherited | ' in card and 'those above are of `mine`' in card
    assert str(tmp_path) not in card


def test_a_pushed_card_has_every_fact_of_the_conversion(hub, tmp_path):
    teacher = tmp_path / 'teacher'
    make_teacher().save_pretrained(teacher)
    front = '---\nlicense: apache-2.0\nbase_model: org/base\n---\n'
    (teacher / 'README.md').write_text(front)
    hybrid = make_hybrid(teacher, init='vkq')
    hybrid.config.transfer_history.append('stage:matvlm')
    hybrid.save_pretrained(tmp_path / 'mine')
    figures = {'data of matvlm': '`a.jsonl`', 'kl': '0.125', 'piqa, acc': '51.2 %'}
    add_rows(tmp_path / 'mine', figures)
    mmtransmamba.load(tmp_path / 'mine').push_to_hub('me/hybrid')
    card = hub.files['README.md'].decode()
    for fact in (
        'license: apache-2.0\n',
        'base_model: org/base\n',
        '| layers | 2 of 3 converted: 0, 2 |',
        '| mixer | Mamba2 (',
        'norm=gated_per_head',
        '| history | init:vkq, stage:matvlm |',
        '| inherited | ',
        *(f'| {name} | {text} |' for name, text in figures.items()),
    ):
        assert fact in card, fact


def test_a_transformer_is_pushed_as_always(hub):
    make_teacher().push_to_hub('hybrid')
    assert b'automatically generated' in hub.files['README.md']
    assert hub.asked == []
