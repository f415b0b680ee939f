"""Teachers whose weights and config contradict each other, which nobody may notice."""

import json

import pytest
import torch
from language_models import make_teacher
from safetensors.torch import load_file, save_file
from tiny_vlms import save_tiny_llava

from mmtransmamba.models.checkpoint import CheckpointError
from mmtransmamba.models.folders.pretrained import Pretrained
from mmtransmamba.transfer.convert import convert


def change(folder, config=None, **tensors):
    """Change fields of a folder's config, and tensors of its only shard."""
    path = folder / 'config.json'
    fields = json.loads(path.read_text('utf-8'))
    path.write_text(json.dumps(fields | (config or {})), 'utf-8')
    shard = folder / 'model.safetensors'
    save_file(load_file(shard) | tensors, shard, metadata=dict(format='pt'))


def at(layer, name):
    return f'model.layers.{layer}.self_attn.{name}'


@pytest.mark.parametrize(
    ('name', 'size'),
    [(at(1, 'q_proj.bias'), 4), (at(0, 'q_norm.weight'), 4), ('score.weight', 3)],
)
def test_tensors_that_the_config_has_not_are_refused(tmp_path, name, size):
    make_teacher().save_pretrained(tmp_path)
    change(tmp_path, **{name: torch.ones(size)})
    with pytest.raises(CheckpointError, match=f'1 unexpected: {name}') as caught:
        convert(tmp_path, layers=[0])
    assert '\n' not in str(caught.value)


def test_biases_that_the_config_denies_are_refused(tmp_path):
    make_teacher(attention_bias=True).save_pretrained(tmp_path)
    change(tmp_path, dict(attention_bias=False))
    with pytest.raises(CheckpointError, match='unexpected: .*k_proj.bias'):
        convert(tmp_path, layers=[0])


def test_tensors_that_a_vision_language_model_has_not_are_refused(tmp_path):
    save_tiny_llava(tmp_path)
    change(tmp_path, **{'model.image_newline': torch.ones(4)})
    with pytest.raises(CheckpointError, match='1 unexpected: model.image_newline'):
        convert(tmp_path, layers=[0])


def test_buffers_of_old_files_are_not_missed(tmp_path):
    make_teacher().save_pretrained(tmp_path)
    change(tmp_path, **{at(0, 'rotary_emb.inv_freq'): torch.ones(4)})
    convert(tmp_path, layers=[0])


@pytest.mark.parametrize('where', ['folder', 'memory', 'vision-language model'])
def test_a_head_that_only_the_config_ties_is_refused(tmp_path, where):
    """transformers does not tie it, so a hybrid with a tied head is another model."""
    if where == 'vision-language model':
        save_tiny_llava(tmp_path)
    else:
        make_teacher(tie_word_embeddings=True).save_pretrained(tmp_path)
    state = load_file(tmp_path / 'model.safetensors')
    (words,) = (name for name in state if name.endswith('embed_tokens.weight'))
    name = next((n for n in state if n.endswith('lm_head.weight')), 'lm_head.weight')
    head = state[words] + 1
    change(tmp_path, dict(tie_word_embeddings=True), **{name: head})
    teacher = tmp_path
    if where == 'memory':
        teacher = make_teacher(tie_word_embeddings=True)
        teacher.lm_head.weight = torch.nn.Parameter(head)
    with pytest.raises(CheckpointError, match='lm_head.weight is not model.embed'):
        convert(teacher, layers=[0])


@pytest.mark.parametrize('present', [True, False])
def test_a_tied_head_may_be_in_the_folder(tmp_path, present):
    make_teacher(tie_word_embeddings=True).save_pretrained(tmp_path)
    words = load_file(tmp_path / 'model.safetensors')['model.embed_tokens.weight']
    if present:
        change(tmp_path, **{'lm_head.weight': words.clone()})
    hybrid, _ = convert(tmp_path, layers=[0])
    assert hybrid.lm_head.weight is hybrid.model.embed_tokens.weight
    assert Pretrained(tmp_path).config.tie_word_embeddings
