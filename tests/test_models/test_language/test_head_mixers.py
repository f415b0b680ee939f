"""Layers some of whose heads stay attention, the others being a linear mixer."""

import pytest
import torch
from sequence_contract import check_sequences
from tiny_decoders import tiny_teacher, tokens
from torch.nn import functional as F

from mmtransmamba.models.language.cache_names import as_argument, returned_cache
from mmtransmamba.models.language.mixers import head_mixer, mixer_class
from mmtransmamba.models.language.mixers.fields import fields_of
from mmtransmamba.transfer.convert import convert
from mmtransmamba.transfer.watch import watch

MIXERS = ('HeadsMamba2', 'HeadsGatedDeltaNet', 'HeadsKDA')
each = pytest.mark.parametrize('mixer', MIXERS)


def converted(mixer, kept=(1,), layers=(0, 2), family='llama', init='vkq', **fields):
    options = {k: fields.pop(k) for k in list(fields) if k.startswith('attention')}
    fields = dict(type=mixer, attention_kv_heads=list(kept), **fields)
    teacher = tiny_teacher(family)
    return convert(teacher, list(layers), init=init, mixer=fields, **options)[0]


def heads_in(model, ids, layer=0):
    """A layer's heads ``[B, L, G, D]`` before the output projection."""
    seen = []
    with torch.no_grad(), watch(model, [layer], seen.append):
        model(ids)
    return seen[0].heads.unflatten(-1, (model.config.num_key_value_heads, -1))


@each
@pytest.mark.parametrize('family', ['llama', 'phi', 'qwen3'])
@pytest.mark.parametrize('init', ['mimic', 'vkq'])
def test_each_head_is_that_of_the_attention_or_of_the_linear_mixer(mixer, family, init):
    teacher, ids = tiny_teacher(family), tokens(2, 13)
    attention = heads_in(teacher, ids)
    plain, _ = convert(teacher, [0, 2], init=init, mixer=mixer.removeprefix('Heads'))
    linear = heads_in(plain, ids)
    groups = range(teacher.config.num_key_value_heads)
    for kept in ([0], [1], [3, 1])[: len(groups)]:
        own = heads_in(converted(mixer, kept, family=family, init=init), ids)
        for i in groups:
            expected = (attention if i in kept else linear)[:, :, i]
            torch.testing.assert_close(own[:, :, i], expected, rtol=1e-4, atol=1e-5)


@each
def test_without_kept_heads_it_is_the_linear_mixer(mixer):
    plain, _ = convert(tiny_teacher(), [0, 2], mixer=mixer.removeprefix('Heads'))
    none = converted(mixer, (), init='mimic')
    expected, state = plain.state_dict(), none.state_dict()
    assert list(state) == list(expected)
    for name, value in state.items():
        assert torch.equal(value, expected[name]), name
    assert torch.equal(none(tokens()).logits, plain(tokens()).logits)
    assert not none.config.key_layers
    names = {type(layer).__name__ for layer in cache_of(none).layers}
    assert 'KeyValueStates' not in names


@each
def test_if_only_kept_heads_reach_the_output_it_is_the_teacher(mixer):
    teacher = tiny_teacher()
    model = converted(mixer, (1,), (0, 1, 2))
    with torch.no_grad():
        for own, theirs in zip(model.model.layers, teacher.model.layers, strict=True):
            own.self_attn.out_proj.weight[:, :16] = 0
            theirs.self_attn.o_proj.weight[:, :16] = 0
        ids = tokens(2, 20)
        torch.testing.assert_close(model(ids).logits, teacher(ids).logits)


def rotated(x):
    """Rotary embedding of heads ``[L, H, K]`` by complex numbers."""
    half = x.shape[-1] // 2
    rates = 1e4 ** -(torch.arange(half, dtype=torch.float64) / half)
    angles = torch.arange(len(x), dtype=torch.float64)[:, None] * rates
    turns = torch.polar(torch.ones_like(angles), angles)[:, None]
    turned = torch.complex(x[..., :half], x[..., half:]) * turns
    return torch.cat((turned.real, turned.imag), -1)


def slow(own, hidden):
    """The definition of ``HeadsGatedDeltaNet`` and ``HeadsKDA`` for a row ``[L, C]``.

    One token and one head at a time, in float64.
    """
    p = {name: value.double() for name, value in own.state_dict().items()}
    x, size, repeats = hidden.double(), own.head_dim, own.repeats
    split = lambda y: y.unflatten(-1, (-1, size))  # noqa: E731
    v, k, q = (split(x @ p[f'{n}_proj.weight'].T) for n in 'vkq')
    linear = [g for g in range(own.all_groups) if g not in own.kept]
    queries = [h for h in range(q.shape[1]) if h // repeats in linear]
    parts = [v[:, linear], k[:, linear], q[:, queries]]
    conv = torch.cat([part.flatten(1) for part in parts], -1)
    taps = p['conv1d.weight'][:, 0]
    padded = F.pad(conv, (0, 0, taps.shape[1] - 1, 0))
    conv = sum(padded[t : t + len(x)] * taps[:, t] for t in range(taps.shape[1]))
    conv = split(F.silu(conv + p['conv1d.bias']))
    low = lambda name: x @ p[f'{name}.0.weight'].T @ p[f'{name}.1.weight'].T  # noqa: E731
    if 'dt_proj.weight' in p:
        dt, z = x @ p['dt_proj.weight'].T, F.silu(x @ p['z_proj.weight'].T)
    else:
        dt, z = low('dt_proj'), (low('z_proj') + p['z_proj.1.bias']).sigmoid()
    g = F.softplus(dt + p['dt_bias']).unflatten(-1, (len(queries), -1))
    g = -p['A_log'].exp()[:, None] * g
    beta = (x @ p['beta_proj.weight'].T).sigmoid()
    heads = []
    for h in range(q.shape[1]):
        group, outputs = h // repeats, []
        if group in own.kept:
            turned = rotated(torch.stack((q[:, h], k[:, group]), 1)).unbind(1)
            for t in range(len(x)):
                scores = turned[1][: t + 1] @ turned[0][t] / size**0.5
                outputs.append(scores.softmax(0) @ v[: t + 1, group])
            heads.append(torch.stack(outputs))
            continue
        place, n = linear.index(group), queries.index(h)
        values, keys = conv[:, place], conv[:, len(linear) + place]
        state = torch.zeros(size, size, dtype=torch.float64)
        for t in range(len(x)):
            key = keys[t] / (keys[t].square().sum() + 1e-6).sqrt()
            query = conv[t, 2 * len(linear) + n]
            query = query / (query.square().sum() + 1e-6).sqrt()
            state = g[t, n].exp()[:, None] * state
            change = beta[t, n] * (values[t] - key @ state)
            state = state + torch.outer(key, change)
            outputs.append(query @ state / size**0.5)
        y = torch.stack(outputs)
        y = y / (y.square().mean(-1, keepdim=True) + own.norm.eps).sqrt()
        y = y * p['norm.weight'].unflatten(0, (-1, size))[n]
        heads.append(y * z.unflatten(-1, (-1, size))[:, n])
    return torch.cat(heads, -1) @ p['out_proj.weight'].T


@pytest.mark.parametrize('mixer', MIXERS[1:])
@pytest.mark.parametrize('kept', [(0,), (1,)])
def test_it_is_its_definition(mixer, kept):
    own = converted(mixer, kept).model.layers[0].self_attn
    hidden = torch.randn(2, 15, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        own.norm.weight.uniform_(0.5, 2)
        expected = torch.stack([slow(own, row) for row in hidden]).float()
        torch.testing.assert_close(own(hidden)[0], expected, rtol=1e-4, atol=1e-5)


@each
@pytest.mark.parametrize('layers', [(0, 2), (0, 1, 2)], ids=['mixed', 'pure'])
@pytest.mark.parametrize('rope', [False, True])
def test_pieces_padding_and_packing_change_nothing(mixer, layers, rope):
    rope = rope and mixer != 'HeadsKDA'  # which refuses it
    scaling = dict(attention_logit_scaling=7.0) if rope else {}
    model = converted(mixer, (0,), layers, 'qwen3', rope=rope, **scaling)
    check_sequences(model, tokens(2, 14), (2, 6, 1, 1, 4))


def test_padding_between_pieces_is_remembered():
    model = converted('HeadsGatedDeltaNet', layers=(0, 1, 2))
    ids = tokens(2, 10)
    with torch.no_grad():
        whole = model(ids).logits
        padded = F.pad(ids[:, :4], (2, 1))
        mask = torch.tensor([[0, 0, 1, 1, 1, 1, 0]]).expand(2, -1)
        cache = returned_cache(model(padded, attention_mask=mask, use_cache=True))
        mask = F.pad(mask, (0, 6), value=1)
        rest = model(ids[:, 4:], attention_mask=mask, past_key_values=cache).logits
    torch.testing.assert_close(rest, whole[:, 4:], rtol=1e-3, atol=1e-4)
    cache.reorder_cache(torch.tensor([1, 1]))
    layer = cache.layers[0]
    assert torch.equal(layer.keys[0], layer.keys[1])
    assert layer.is_token.tolist() == mask.bool().tolist()
    cache.reset()
    with torch.no_grad():
        again = model(ids, past_key_values=cache).logits
    torch.testing.assert_close(again, whole, rtol=1e-3, atol=1e-4)


def test_rows_of_a_cache_are_chosen_and_repeated_whole():
    model = converted('HeadsMamba2', (0,), layers=(0, 1, 2))
    ids = tokens(3, 10)
    mask = torch.ones(3, 9, dtype=torch.int64)
    mask[1, :4] = 0
    more = F.pad(mask, (0, 1), value=1)

    def follow(change, rows):
        with torch.no_grad():
            output = model(ids[:, :9], attention_mask=mask, use_cache=True)
            cache = returned_cache(output)
            change(cache)
            options = dict(attention_mask=more[rows]) | as_argument(cache)
            found = model(ids[rows, 9:], **options).logits
            whole = model(ids[rows], attention_mask=more[rows]).logits[:, 9:]
        torch.testing.assert_close(found, whole, rtol=1e-3, atol=1e-4)

    for rows in ([2, 0], [1], [0, 1, 2]):
        index = torch.tensor(rows)
        follow(lambda cache, index=index: cache.batch_select_indices(index), rows)
    chosen = torch.tensor([True, False, True])
    follow(lambda cache: cache.batch_select_indices(chosen), [0, 2])
    follow(lambda cache: cache.batch_repeat_interleave(2), [0, 0, 1, 1, 2, 2])


def cache_of(model, length=9):
    with torch.no_grad():
        return returned_cache(model(tokens(2, length), use_cache=True))


@each
def test_the_cache_has_keys_of_the_kept_heads_alone(mixer):
    models = (  # of four key-value heads
        tiny_teacher('phi'),
        converted(mixer, (), family='phi'),
        converted(mixer, (2, 0), family='phi'),
    )
    attention, linear, keys = (cache_of(model).layers[0] for model in models)
    assert attention.keys.shape == (2, 4, 9, 8)
    assert keys.keys.shape == keys.values.shape == (2, 2, 9, 8)
    assert keys.recurrent_states[0].numel() * 2 == linear.recurrent_states[0].numel()
    assert keys.conv_states[0].shape[1] * 2 == linear.conv_states[0].shape[1]
    assert keys.get_seq_length() == 9


@each
def test_it_generates_saves_loads_and_learns(mixer, tmp_path):
    model = converted(mixer, (1,), (0, 1, 2), init='mimic')
    model.save_pretrained(tmp_path)
    model = type(model).from_pretrained(tmp_path).eval()
    assert model.config.mixer['attention_kv_heads'] == [1]
    prompt = tokens(2, 6)
    options = dict(max_new_tokens=5, do_sample=False)
    expected = model.generate(prompt, use_cache=False, **options)[:, 6:]
    ids, mask = F.pad(prompt, (3, 0)), F.pad(torch.ones_like(prompt), (3, 0))
    padded = model.generate(ids, attention_mask=mask, **options)[:, 9:]
    assert torch.equal(padded, expected)
    beams = model.generate(prompt, num_beams=2, **options)[:, 6:]
    plain = model.generate(prompt, num_beams=2, use_cache=False, **options)[:, 6:]
    assert torch.equal(beams, plain)
    half = type(model).from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.model.layers[0].self_attn.A_log.dtype == torch.float32
    assert half(prompt).logits.isfinite().all()
    model.train()(prompt, labels=prompt).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name


@pytest.mark.parametrize(
    'options',
    [dict(attention_rope=False), dict(attention_logit_scaling=3.0)],
    ids=['no rope', 'scaling'],
)
def test_options_of_attention_layers_apply_to_kept_heads(options):
    mixer, ids = 'HeadsGatedDeltaNet', tokens(2, 9)
    attention = heads_in(converted(mixer, (1,), (1, 2), **options), ids)
    model = converted(mixer, (1,), (0, 1, 2), **options)
    torch.testing.assert_close(heads_in(model, ids)[:, :, 1], attention[:, :, 1])
    other = heads_in(converted(mixer, (1,), (0, 1, 2)), ids)
    assert not torch.allclose(other[:, :, 1], attention[:, :, 1], rtol=1e-2)
    own = model.model.layers[0].self_attn
    hidden = torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(0))
    tables = own.rotation(hidden)[:2]
    with torch.no_grad():
        alone = own(hidden)[0]
        given = own(
            hidden, position_embeddings=tables, position_ids=torch.arange(9)[None]
        )
    torch.testing.assert_close(alone, given[0])


def test_rows_that_begin_anew_within_a_graph_are_kept_apart():
    own = converted('HeadsMamba2').model.layers[0].self_attn
    hidden = torch.randn(1, 24, 32, generator=torch.Generator().manual_seed(0))
    begins = torch.zeros(1, 24, dtype=torch.bool)
    begins[0, 9] = True
    turns = own.rotation(hidden)
    with torch.no_grad():
        y = own.mix(hidden, lambda *x: own.recur(*x, *turns, begins=begins)[0])
        parts = [own(part)[0] for part in hidden.split((9, 15), dim=1)]
    torch.testing.assert_close(y, torch.cat(parts, 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('cache', ['static', 'dynamic'])
def test_it_generates_with_any_kind_of_cache(cache):
    model, prompt = converted('HeadsMamba2', layers=(0, 1, 2)), tokens(2, 6)
    options = dict(max_new_tokens=4, do_sample=False)
    expected = model.generate(prompt, use_cache=False, **options)
    found = model.generate(prompt, cache_implementation=cache, **options)
    assert torch.equal(found, expected)


@pytest.mark.parametrize('layer', range(3))
def test_beside_layers_of_attention_a_static_cache_is_refused(layer):
    model, prompt = converted('HeadsMamba2', layers=(layer,)), tokens(2, 6)
    options = dict(max_new_tokens=4, do_sample=False)
    expected = model.generate(prompt, use_cache=False, **options)
    assert torch.equal(model.generate(prompt, **options), expected)
    with pytest.raises(ValueError, match="leave out cache_implementation='static'"):
        model.generate(prompt, cache_implementation='static', **options)


def test_layers_keep_heads_of_their_own():
    mixers = {0: dict(attention_kv_heads=[0]), 2: dict(attention_kv_heads=[1])}
    model, _ = convert(
        tiny_teacher(), init='vkq', mixer='HeadsGatedDeltaNet', layer_mixers=mixers
    )
    assert model.config.key_layers == [0, 2]
    check_sequences(model, tokens(2, 14), (2, 6, 1, 1, 4))
    sizes = [
        getattr(layer, 'keys', None) is not None for layer in cache_of(model).layers
    ]
    assert sizes == [True, False, True]


@each
def test_fields_are_those_of_the_linear_mixer_and_the_heads(mixer):
    kind = mixer_class(mixer.removeprefix('Heads'))
    fields = fields_of(mixer_class(mixer))
    assert fields == dict(attention_kv_heads=()) | fields_of(kind)
    assert head_mixer(kind) == head_mixer(mixer_class(mixer)) == mixer
    assert head_mixer(mixer_class('Mamba')) is None


@pytest.mark.parametrize(
    'kept, message',
    [
        ([2], r'attention_kv_heads=\[2\] of layer 0 must name some, but not all, of t'),
        ([0, 1], 'key-value heads 0 to 1. A layer that keeps all'),
        ([-1], r'attention_kv_heads=\[-1\] of HeadsKDA must be a list of different nu'),
        ([0, 0], 'must be a list of different numbers from 0'),
        ([0.0], 'must be a list of different numbers from 0'),
        (1, 'must be a list of different numbers from 0'),
    ],
)
def test_other_heads_are_refused(kept, message):
    fields = dict(type='HeadsKDA', attention_kv_heads=kept)
    with pytest.raises(ValueError, match=message):
        convert(tiny_teacher(), [0], init='vkq', mixer=fields)


def test_heads_with_a_sliding_window_are_not_kept():
    teacher = tiny_teacher('mistral', sliding_window=8)
    fields = dict(type='HeadsKDA', attention_kv_heads=[0])
    with pytest.raises(ValueError, match='attention of layer 0, 2 has a sliding win'):
        convert(teacher, [0, 2], mixer=fields)
    convert(teacher, [0, 2], mixer=dict(fields, attention_kv_heads=[]))
