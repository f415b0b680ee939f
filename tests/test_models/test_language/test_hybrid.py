"""Hybrid decoders: every family generates, saves, loads and trains."""

import re

import pytest
import torch
from tiny_decoders import FAMILY_MIXERS, MIXERS
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    DynamicCache,
    StaticCache,
)

from mmtransmamba.models.language import (
    HYBRIDS,
    MAMBA,
    cast_parameters,
)
from mmtransmamba.models.language.cache_names import as_argument, returned_cache
from mmtransmamba.models.language.mixers import mixer_class

FAMILIES = list(HYBRIDS)
LAYOUTS = ['attention first', 'mamba first', 'pure']
NEW = 6


@pytest.fixture
def prompt():
    torch.manual_seed(1)
    return torch.randint(3, 61, (2, 9))


def padded(prompt):
    """The prompt with four tokens of padding before its first row."""
    ids = torch.cat((torch.zeros_like(prompt[:, :4]), prompt), dim=1)
    ids[1] = torch.cat((prompt[1], prompt[1, :4]))
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    return ids, mask


def generate(model, ids, **kwargs):
    torch.manual_seed(2)
    return model.generate(ids, max_new_tokens=NEW, min_new_tokens=NEW, **kwargs)


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('family, mixer', FAMILY_MIXERS)
def test_cached_equals_uncached_generation(make_hybrid, family, layout, mixer, prompt):
    model = make_hybrid(family, layout, mixer=mixer)
    kind = mixer_class(mixer)
    for i, layer in enumerate(model.model.layers):
        assert isinstance(layer.self_attn, kind) == (
            model.config.layer_types[i] == MAMBA
        )
    ids, mask = padded(prompt)
    for how in (dict(do_sample=False), dict(do_sample=True), dict(num_beams=3)):
        fast = generate(model, ids, attention_mask=mask, **how)
        slow = generate(model, ids, attention_mask=mask, use_cache=False, **how)
        static = generate(
            model, ids, attention_mask=mask, cache_implementation='static', **how
        )
        assert torch.equal(fast, slow), how
        assert torch.equal(static, slow), how


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('family', FAMILIES)
def test_a_conversation_goes_on_from_its_cache(make_hybrid, family, layout, prompt):
    model = make_hybrid(family, layout)
    for cache in (
        DynamicCache(config=model.config),
        StaticCache(config=model.config, max_cache_len=32),
    ):
        answer = generate(model, prompt, do_sample=False, **as_argument(cache))
        longer = torch.cat((answer, prompt[:, :3]), dim=1)
        # Or generate takes what happens to be the padding's id for padding.
        how = dict(attention_mask=torch.ones_like(longer), do_sample=False)
        fast = generate(model, longer, **how, **as_argument(cache))
        slow = generate(model, longer, **how, use_cache=False)
        assert torch.equal(fast, slow)


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('family, mixer', FAMILY_MIXERS)
def test_padding_changes_nothing(make_hybrid, family, layout, mixer, prompt):
    model = make_hybrid(family, layout, mixer=mixer)
    ids, mask = padded(prompt)
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    with torch.no_grad():
        alone = model(prompt[:1]).logits
        batch = model(ids, attention_mask=mask, position_ids=positions).logits
    torch.testing.assert_close(batch[:1, 4:], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('mixer', MIXERS)
def test_logits_of_pieces_equal_those_of_the_whole(make_hybrid, layout, mixer, prompt):
    model = make_hybrid('llama', layout, mixer=mixer)
    with torch.no_grad():
        whole = model(prompt, use_cache=False).logits
        for cache in (
            DynamicCache(config=model.config),
            StaticCache(config=model.config, max_cache_len=16),
        ):
            pieces = [
                model(part, **as_argument(cache)).logits
                for part in prompt.split((4, 1, 3, 1), dim=1)
            ]
            logits = torch.cat(pieces, dim=1)
            torch.testing.assert_close(logits, whole, rtol=1e-4, atol=1e-5)
            assert int(cache.get_seq_length()) == 9 or layout != 'pure'


def test_a_pure_models_cache_does_not_grow(make_hybrid):
    model = make_hybrid('llama', 'pure')

    def kept(length):
        with torch.no_grad():
            cache = returned_cache(model(torch.ones(1, length, dtype=torch.long)))
        return sum(
            layer.conv_states[0].numel() + layer.recurrent_states[0].numel()
            for layer in cache.layers
        )

    assert kept(4) == kept(64) > 0


@pytest.mark.parametrize('family, mixer', FAMILY_MIXERS)
def test_saves_and_loads(make_hybrid, family, mixer, prompt, tmp_path):
    model = make_hybrid(family, mixer=mixer, transfer_history=['init:mimic'])
    model.save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert type(config) is HYBRIDS[family][0]
    assert config.layer_types == model.config.layer_types
    assert config.transfer_history == ['init:mimic']
    same = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(same(prompt).logits, model(prompt).logits)
    assert isinstance(AutoModel.from_pretrained(tmp_path), HYBRIDS[family][1])


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize(
    'mixer, kept',
    [
        ('Mamba', {'A_log', 'D', 'dt_proj.bias'}),
        ('Mamba2', {'A_log', 'D', 'dt_bias'}),
    ],
)
def test_half_precision_keeps_the_ssm_parameters_in_float32(
    make_hybrid, family, mixer, kept, prompt, tmp_path
):
    original = make_hybrid(family, mixer=mixer)
    original.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    for model in (loaded, cast_parameters(original, torch.bfloat16)):
        types = {n: p.dtype for n, p in model.named_parameters()}
        prefix = 'model.layers.1.self_attn.'
        found = {n for n, dtype in types.items() if dtype == torch.float32}
        assert {n.removeprefix(prefix) for n in found if prefix in n} == kept
        assert len(found) == 2 * len(kept)
        assert set(types.values()) == {torch.float32, torch.bfloat16}
    ids, mask = padded(prompt)
    fast = generate(loaded, ids, attention_mask=mask, do_sample=False)
    slow = generate(loaded, ids, attention_mask=mask, do_sample=False, use_cache=False)
    assert torch.equal(fast, slow)
    loaded.train()(prompt, labels=prompt).loss.backward()
    assert all(p.grad.isfinite().all() for p in loaded.parameters())


@pytest.mark.parametrize('family', FAMILIES)
def test_gradient_checkpointing_has_the_same_gradients(make_hybrid, family, prompt):
    grads = []
    for recompute in (False, True):
        model = make_hybrid(family).train()
        if recompute:
            model.gradient_checkpointing_enable()
        model(prompt, labels=prompt).loss.backward()
        grads.append({n: p.grad for n, p in model.named_parameters()})
        assert all(g is not None and g.isfinite().all() for g in grads[-1].values())
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, msg=name)


@pytest.mark.usefixtures('compilable')
@pytest.mark.parametrize(
    'family, layout, mixer',
    [(family, 'mamba first', 'Mamba2') for family in FAMILIES]
    + [('llama', 'pure', 'Mamba2'), ('llama', 'pure', 'Mamba')],
)
def test_the_decode_step_compiles(make_hybrid, family, layout, mixer, prompt):
    """In one graph, with padding before a row too."""
    model = make_hybrid(family, layout, mixer=mixer)
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend='aot_eager')
    caches = [StaticCache(config=model.config, max_cache_len=32) for _ in range(2)]
    steps = torch.randint(3, 61, (3, 2, 1))
    ids, mask = padded(prompt)
    with torch.no_grad():
        for cache in caches:
            model(ids, attention_mask=mask, **as_argument(cache))
        for ids in steps:
            mask = torch.cat((mask, mask.new_ones(2, 1)), dim=1)
            rows = dict(
                attention_mask=mask, position_ids=mask.sum(-1, keepdim=True) - 1
            )
            expected = model(ids, **rows, **as_argument(caches[0])).logits
            actual = compiled(ids, **rows, **as_argument(caches[1])).logits
            torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_padding_does_not_reach_the_state(make_hybrid):
    """Not even through a convolution's bias."""
    mixer = make_hybrid('llama', 'pure').model.layers[0].self_attn
    nn.init.constant_(mixer.conv1d.bias, 3.0)
    tokens = torch.randn(1, 6, 32)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1]])
    out, _ = mixer(tokens, padding_mask=mask)
    alone, _ = mixer(tokens[:, 2:])
    torch.testing.assert_close(out[:, 2:], alone, rtol=1e-4, atol=1e-5)


def test_another_depth_than_that_of_the_layer_types_is_refused(make_hybrid, tmp_path):
    make_hybrid('llama', 'pure').save_pretrained(tmp_path)
    with pytest.raises(ValueError, match='layer_types names 3 .*num_hidden_layers=2'):
        AutoModelForCausalLM.from_pretrained(tmp_path, num_hidden_layers=2)


def test_beam_search_reorders_a_pure_models_states(make_hybrid, prompt):
    model = make_hybrid('llama', 'pure')
    with torch.no_grad():
        cache = returned_cache(model(prompt))
        cache.reorder_cache(torch.tensor([1, 0]))
        swapped = model(prompt[:, :1], **as_argument(cache)).logits
        other = returned_cache(model(prompt.flip(0)))
        direct = model(prompt[:, :1], **as_argument(other)).logits
    torch.testing.assert_close(swapped, direct, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    'fields, message',
    [
        (
            dict(mixer='Mamba3'),
            "mixer: type='Mamba3' must be one of DiscreteMamba2, GatedDeltaNet, ",
        ),
        (
            dict(mixer=dict(type='Mamba', norm='gated')),
            "mixer: Mamba has no field 'norm'; it takes d_conv, conv_activation, "
            'd_state, expand, in_bias, out_bias.',
        ),
        (
            dict(mixer=dict(d_conv=0)),
            'mixer: d_conv=0 of Mamba2 must be a positive integer.',
        ),
        (
            dict(mixer=dict(gate='yes')),
            "mixer: gate='yes' of Mamba2 must be True or False.",
        ),
        (
            dict(mixer=dict(type='Mamba', expand=float('nan'))),
            'mixer: expand=nan of Mamba must be a positive number.',
        ),
        (
            dict(layer_mixers={0: dict(d_conv=2)}),
            'layer_mixers names 0; the layers with a mixer are 1, 2.',
        ),
        (
            dict(layer_mixers={1: dict(type='Mamba', norm='gated')}),
            "mixer: Mamba has no field 'norm'",
        ),
        (
            dict(mixer=dict(norm='batch')),
            "mixer: norm='batch' of Mamba2 must be one of gated, gated_per_head, "
            'per_head, none.',
        ),
        (
            dict(mixer=dict(conv_activation='tanh')),
            "mixer: conv_activation='tanh' of Mamba2 must be one of silu, identity.",
        ),
        (
            dict(layer_types=[MAMBA]),
            'layer_types names 1 layers, but num_hidden_layers=3.',
        ),
        (
            dict(layer_types=[MAMBA, 'sliding_attention', 'full_attention']),
            'layer_types has full_attention and sliding_attention, but all attention '
            'layers of a hybrid_llama are of one kind.',
        ),
    ],
)
def test_bad_fields(make_hybrid, fields, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make_hybrid(**fields)


def test_qwen_may_mix_kinds_of_attention(make_hybrid, prompt):
    kinds = [MAMBA, 'sliding_attention', 'full_attention']
    model = make_hybrid(
        'qwen2', layer_types=kinds, use_sliding_window=True, sliding_window=4
    )
    assert model.config.layer_types == kinds
    assert model(prompt).logits.isfinite().all()


@pytest.mark.parametrize('layout', LAYOUTS)
def test_a_cache_without_states_is_refused(make_hybrid, layout, prompt):
    model = make_hybrid('llama', layout)
    with pytest.raises(ValueError, match=r'DynamicCache\(config=model\.config\)'):
        model(prompt, **as_argument(DynamicCache()))


def test_config_names_no_code_in_its_folder(make_hybrid, tmp_path):
    """TRL reads the field of every class that is not transformers' own."""
    config = make_hybrid().config
    assert 'AutoModelForCausalLM' not in config.auto_map
    config.save_pretrained(tmp_path)
    assert 'auto_map' not in (tmp_path / 'config.json').read_text()
