"""Rotary embedding inside mixers, attention without it, and growing logits."""

import pytest
import torch
from sequence_contract import check_sequences
from tiny_decoders import FAMILIES, LENGTH_ROPES, SIZES, tiny_teacher, tokens
from torch.nn import functional as F
from transformers import DynamicCache
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from mmtransmamba.models.language.cache_names import as_argument
from mmtransmamba.models.language.mixers.rotary import rotary_tables, rotate
from mmtransmamba.models.vision.families import HybridViTConfig
from mmtransmamba.transfer.convert import convert
from mmtransmamba.transfer.watch import output_projection

MIXERS = ('Mamba2', 'GatedDeltaNet')
each = pytest.mark.parametrize('mixer', MIXERS)


def converted(mixer, layers=(0, 2), family='llama', rope=True, **fields):
    teacher = tiny_teacher(family)
    mixer = dict(type=mixer, rope=rope, d_conv=2)
    return convert(teacher, list(layers), init='vkq', mixer=mixer, **fields)[0]


@pytest.mark.parametrize('family', FAMILIES)
def test_the_rotation_is_the_decoders(family):
    """Phi rotates half of a head's channels."""
    model = tiny_teacher(family)
    positions = torch.tensor([[0, 1, 5, 9]])
    size = SIZES['hidden_size'] // SIZES['num_attention_heads']
    x = torch.randn(1, 4, 3, size, generator=torch.Generator().manual_seed(0))
    cos, sin = model.model.rotary_emb(x, positions)
    own = rotary_tables(model.config, positions, torch.float32)
    torch.testing.assert_close(own, (cos, sin))
    turned = cos.shape[-1]
    expected, _ = apply_rotary_pos_emb(
        *(x[..., :turned].transpose(1, 2) for _ in range(2)), cos, sin
    )
    actual = rotate(x, *own)
    torch.testing.assert_close(actual[..., :turned], expected.transpose(1, 2))
    assert torch.equal(actual[..., turned:], x[..., turned:])


def test_without_decay_it_is_linear_attention_with_rotary_q_and_k():
    model = converted('Mamba2', family='llama')
    own = model.model.layers[0].self_attn
    hidden = torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        own.A_log.fill_(-40)
        own.D.zero_()
        own.dt_proj.weight.zero_()
        xBC, dt = own.parts(hidden)
        x, _, B, C = own.operands(xBC, dt)  # not rotated
        cos, sin = (
            t[:, None]
            for t in rotary_tables(own.config, torch.arange(9)[None], x.dtype)
        )

        def turn(x):
            first, second = x.transpose(1, 2).chunk(2, dim=-1)
            half = cos.shape[-1] // 2
            c, s = cos[..., :half], sin[..., :half]
            return torch.cat((first * c - second * s, second * c + first * s), -1)

        B, x = (own.repeated(part) for part in (B, x))
        scores = (turn(C) @ turn(B).transpose(-1, -2)).tril()
        weighted = (dt[..., None] * x).transpose(1, 2)
        y = (scores @ weighted).transpose(1, 2).flatten(-2)
        expected = own.out_proj(own.gate(y, hidden))
        torch.testing.assert_close(own(hidden)[0], expected, rtol=1e-4, atol=1e-5)


@each
def test_only_differences_of_positions_matter(mixer):
    model = converted(mixer)
    own = model.model.layers[0].self_attn
    hidden = torch.randn(1, 7, 32, generator=torch.Generator().manual_seed(0))
    positions = torch.arange(7)[None]
    with torch.no_grad():
        default = own(hidden)[0]
        outputs = [
            own(
                hidden,
                position_embeddings=rotary_tables(
                    own.config, scale * positions + shift, torch.float32
                ),
            )[0]
            for scale, shift in ((1, 0), (1, 40), (3, 0))
        ]
    torch.testing.assert_close(outputs[0], default)
    torch.testing.assert_close(outputs[1], default, rtol=1e-3, atol=1e-4)
    assert (outputs[2] - default).abs().max() > 1e-3
    assert (
        converted(mixer, rope=False).model.layers[0].self_attn(hidden)[0] != default
    ).any()


@each
@pytest.mark.parametrize('layers', [(0, 2), (0, 1, 2)], ids=['mixed', 'pure'])
def test_pieces_padding_and_packing_change_nothing(mixer, layers):
    model = converted(mixer, layers, 'qwen3')
    ids = tokens(2, 12)
    whole = check_sequences(model, ids, (5, 1, 1, 5))
    with torch.no_grad():
        inside = torch.cat((ids[:, :4], ids[:, :2], ids[:, 4:]), dim=1)
        mask = torch.ones_like(inside)
        mask[:, 4:6] = 0
        logits = model(inside, attention_mask=mask).logits[:, mask[0].bool()]
        torch.testing.assert_close(logits, whole, rtol=1e-3, atol=1e-4)


@each
@pytest.mark.parametrize('layers', [(0, 2), (0, 1, 2)], ids=['mixed', 'pure'])
def test_padded_prompts_are_continued_as_alone(mixer, layers, tmp_path):
    model = converted(mixer, layers)
    model.save_pretrained(tmp_path)
    model = type(model).from_pretrained(tmp_path).eval()
    assert model.config.mixer['rope'] is True
    prompt = tokens(2, 6)
    options = dict(max_new_tokens=5, do_sample=False)
    alone = model.generate(prompt, use_cache=False, **options)[:, 6:]
    ids, mask = F.pad(prompt, (3, 0)), F.pad(torch.ones_like(prompt), (3, 0))
    padded = model.generate(ids, attention_mask=mask, **options)[:, 9:]
    assert torch.equal(padded, alone)


@pytest.mark.parametrize('length', [12, 40])
@pytest.mark.parametrize('rope', LENGTH_ROPES, ids=lambda rope: rope['rope_type'])
def test_frequencies_follow_the_length_as_the_decoders_do(rope, length):
    model = tiny_teacher(rope_parameters=rope, max_position_embeddings=24)
    positions = torch.arange(length)[None]
    x = torch.zeros(1, length, 8)
    expected = model.model.rotary_emb(x, positions)
    torch.testing.assert_close(
        rotary_tables(model.config, positions, torch.float32), expected
    )
    mixer = dict(type='Mamba2', rope=True)
    own = convert(model, [0], init='vkq', mixer=mixer)[0].model.layers[0].self_attn
    hidden = torch.randn(1, length, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(
            own(hidden)[0], own(hidden, position_embeddings=expected)[0]
        )


@pytest.mark.parametrize('given', ['position_ids', 'position_embeddings'])
def test_given_positions_count(given):
    own = converted('Mamba2').model.layers[0].self_attn
    hidden = torch.randn(1, 6, 32, generator=torch.Generator().manual_seed(0))
    positions = torch.tensor([[0, 1, 2, 7, 8, 20]])
    value = positions
    if given == 'position_embeddings':
        value = rotary_tables(own.config, positions, torch.float32)
    with torch.no_grad():
        found = own(hidden, **{given: value})[0]
        tables = rotary_tables(own.config, positions + 3, torch.float32)
        moved = own(hidden, position_embeddings=tables)[0]
        counted = own(hidden)[0]
    torch.testing.assert_close(found, moved)
    assert (found - counted).abs().max() > 1e-4


def test_a_mixer_alone_counts_tokens_and_not_padding():
    own = converted('GatedDeltaNet').model.layers[0].self_attn
    hidden = torch.randn(1, 6, 32, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[0, 0, 1, 1, 1, 1]])
    with torch.no_grad():
        padded = own(hidden, padding_mask=mask)[0][:, 2:]
        torch.testing.assert_close(padded, own(hidden[:, 2:])[0])
    cache = DynamicCache(config=own.config)
    with pytest.raises(ValueError, match='Layer 0 rotates .* position_embeddings'):
        own(hidden, **as_argument(cache))


def dense(model, hidden, layer, rope, base):
    """The attention of a layer in plain matrix products, in float64."""
    attention, config = model.model.layers[layer].self_attn, model.config
    size = attention.head_dim
    # Without hooks, which are what is tested.
    q, k, v = (
        projection.forward(hidden).unflatten(-1, (-1, size)).transpose(1, 2)
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    if hasattr(attention, 'q_norm'):
        q, k = attention.q_norm.forward(q), attention.k_norm.forward(k)
    positions = torch.arange(hidden.shape[1])
    if rope:
        tables = rotary_tables(config, positions[None], hidden.dtype)
        q, k = (rotate(x.transpose(1, 2), *tables).transpose(1, 2) for x in (q, k))
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    scores = (q @ k.transpose(-1, -2)).double() / size**0.5
    if base is not None:
        scores = (
            scores
            * ((positions + base).double().log() / torch.tensor(base).log())[:, None]
        )
    future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    weights = scores.masked_fill(future, -torch.inf).softmax(-1).to(v.dtype)
    mixed = (weights @ v).transpose(1, 2).flatten(-2)
    return output_projection(attention)(mixed)


@pytest.mark.parametrize('rope', [True, False])
@pytest.mark.parametrize('base', [None, 4.0])
@pytest.mark.parametrize('family', FAMILIES)
def test_attention_layers_do_what_the_fields_say(family, rope, base):
    model = converted(
        'Mamba2',
        (0, 2),
        family,
        attention_rope=rope,
        attention_logit_scaling=base,
    )
    hidden = torch.randn(2, 8, 32, generator=torch.Generator().manual_seed(0))
    seen = []
    attention = model.model.layers[1].self_attn
    attention.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs['hidden_states']),
        with_kwargs=True,
    )
    attention.register_forward_hook(lambda module, args, out: seen.append(out[0]))
    with torch.no_grad():
        model(inputs_embeds=hidden)
        expected = dense(model, seen[0], 1, rope, base)
    torch.testing.assert_close(seen[1], expected, rtol=1e-4, atol=1e-5)


def test_a_hybrid_without_rope_in_attention_generates_saves_and_loads(tmp_path):
    model = converted(
        'KDA', rope=False, attention_rope=False, attention_logit_scaling=8.0
    )
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    assert again.config.attention_rope is False
    ids = tokens(2, 6)
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, model(ids).logits)
    options = dict(max_new_tokens=5, do_sample=False)
    alone = again.generate(ids, use_cache=False, **options)[:, 6:]
    padded, mask = F.pad(ids, (3, 0)), F.pad(torch.ones_like(ids), (3, 0))
    assert torch.equal(
        again.generate(padded, attention_mask=mask, **options)[:, 9:], alone
    )


@pytest.mark.parametrize(
    'fields, message',
    [
        (dict(attention_rope='no'), "attention_rope='no' must be True or False"),
        (dict(attention_logit_scaling=1.0), 'attention_logit_scaling=1.0 must be None'),
        (dict(attention_logit_scaling=True), 'attention_logit_scaling=True must be'),
    ],
)
def test_values_are_checked(fields, message):
    with pytest.raises(ValueError, match=message):
        converted('Mamba2', **fields)


@pytest.mark.parametrize('mixer', ['KDA', 'WindowKDA'])
def test_channels_that_decay_differently_are_not_rotated(mixer):
    with pytest.raises(ValueError, match=f'rope=True of {mixer} must be one of False'):
        converted(mixer)


@pytest.mark.parametrize(
    'fields', [dict(attention_rope=False), dict(attention_logit_scaling=8.0)]
)
def test_encoders_have_no_positions_to_change(fields):
    with pytest.raises(ValueError, match='attention_rope and .* are for decoders'):
        HybridViTConfig(**fields)
    assert HybridViTConfig().attention_rope
