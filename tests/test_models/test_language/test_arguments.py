"""Unknown arguments are refused: they may be a cache, a mask or positions."""

import pytest
import torch
from tiny_decoders import MIXERS
from tiny_llavas import hybrid_llava
from tiny_patch_decoders import tiny_patch_decoder
from transformers import DynamicCache

from mmtransmamba.models.language import HYBRIDS
from mmtransmamba.models.language.arguments import HARMLESS
from mmtransmamba.models.language.cache_names import as_argument

UNKNOWN = ['cache_params', 'layer_past', 'state', 'padding_mask', 'block_table', 'gaps']
KINDS = [*HYBRIDS, 'attention', 'llava', 'patch decoder', 'plain patch decoder']


def build(make_hybrid, kind):
    if kind == 'llava':
        return hybrid_llava()
    if 'patch decoder' in kind:
        return tiny_patch_decoder(None if 'plain' in kind else 'pure')
    if kind == 'attention':
        return make_hybrid(layer_types=['full_attention'] * 3)
    return make_hybrid(kind, 'pure')


@pytest.mark.parametrize('name', UNKNOWN)
@pytest.mark.parametrize('kind', KINDS)
def test_a_model_refuses_what_it_does_not_know(make_hybrid, kind, name):
    model = build(make_hybrid, kind)
    for part in (model, model.model):
        with pytest.raises(TypeError, match=f"got an argument '{name}'"):
            part(torch.full((1, 3), 7), **{name: torch.ones(1, 3)})


@pytest.mark.parametrize('mixer', MIXERS)
def test_a_mixer_refuses_what_it_does_not_know(make_hybrid, mixer):
    layer = make_hybrid('llama', 'pure', mixer=mixer).model.layers[0].self_attn
    tokens = torch.randn(1, 3, 32)
    for name in ('cache_params', 'kv_cache', 'block_table', 'cache_position'):
        with pytest.raises(TypeError, match=f"Mixer got an argument '{name}'"):
            layer(tokens, **{name: None})
    layer(tokens, attention_mask=None, position_ids=None, position_embeddings=None)


def test_a_mixer_that_keeps_its_state_needs_a_cache(make_hybrid):
    model = make_hybrid('llama', 'pure')
    layer = model.model.layers[1].self_attn
    tokens = torch.randn(1, 3, 32)
    with pytest.raises(ValueError, match='Layer 1 got use_cache=True but no cache'):
        layer(tokens, use_cache=True)
    layer(tokens, use_cache=True, **as_argument(DynamicCache(config=model.config)))
    layer(tokens, use_cache=False)


@pytest.mark.parametrize('kind', KINDS)
def test_what_is_harmless_changes_nothing(make_hybrid, kind):
    model = build(make_hybrid, kind)
    ids = torch.full((1, 3), 7)
    values = dict.fromkeys(HARMLESS)
    values |= dict(return_dict=True, output_hidden_states=False)
    values['token_type_ids'] = values['mm_token_type_ids'] = torch.zeros_like(ids)
    with torch.no_grad():
        assert torch.equal(model(ids, **values).logits, model(ids).logits)


@pytest.mark.parametrize(
    'given, message',
    [
        (dict(seq_idx=torch.tensor([[0, 0, 1, 1]])), 'seq_idx names several'),
        (dict(cu_seq_lens_q=torch.tensor([0, 2, 4])), 'cu_seq_lens_q names several'),
        (dict(is_causal=False), 'only see what is before'),
    ],
)
def test_sequences_are_told_apart_by_positions(make_hybrid, given, message):
    model = make_hybrid('llama', 'attention first')
    ids = torch.arange(4, 8)[None]
    with pytest.raises(ValueError, match=message):
        model(ids, **given)
    if 'is_causal' not in given:
        positions = torch.tensor([[0, 1, 0, 1]])
        with torch.no_grad():
            told = model(ids, position_ids=positions, **given).logits
            alone = [model(part, use_cache=False).logits for part in ids.split(2, 1)]
        torch.testing.assert_close(told, torch.cat(alone, 1), rtol=1e-4, atol=1e-5)
