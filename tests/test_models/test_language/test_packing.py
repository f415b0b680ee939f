"""Sequences packed into one row are as in rows of their own."""

import pytest
import torch
import torch.nn.functional as F
from tiny_decoders import FAMILY_MIXERS, MIXERS
from torch import nn
from transformers import AttentionInterface, DynamicCache

from mmtransmamba.models.language import (
    ATTENTION,
    MAMBA,
    cast_parameters,
)
from mmtransmamba.models.language.cache_names import as_argument, returned_cache
from mmtransmamba.models.language.packing import find_packing, trace_packing

LENGTHS = [(4, 1, 6), (7, 2)]  # two rows of 11, the second with padding


@pytest.fixture
def sequences():
    generator = torch.Generator().manual_seed(1)
    return [
        [torch.randint(3, 61, (length,), generator=generator) for length in row]
        for row in LENGTHS
    ]


def pack(sequences):
    """Rows, their positions, and the mask of tokens that are not padding."""
    width = max(sum(map(len, row)) for row in sequences)
    ids = torch.zeros(len(sequences), width, dtype=torch.long)
    positions, mask = torch.zeros_like(ids), torch.zeros_like(ids)
    for i, row in enumerate(sequences):
        end = sum(map(len, row))
        ids[i, :end] = torch.cat(row)
        positions[i, :end] = torch.cat([torch.arange(len(s)) for s in row])
        mask[i, :end] = 1
    return dict(input_ids=ids, position_ids=positions, attention_mask=mask)


def logits_and_gradients(model, batches, chosen=None):
    """Logits of all tokens, and the weights' gradients of a loss on all of them."""
    model.zero_grad()
    logits = []
    for batch in batches:
        out = model(**batch).logits
        logits.append(out.flatten(0, 1) if chosen is None else out[chosen])
    logits = torch.cat(logits)
    logits.logsumexp(-1).square().sum().backward()
    return logits, {n: p.grad for n, p in model.named_parameters()}


def assert_alike(actual, expected):
    torch.testing.assert_close(actual[0], expected[0], rtol=1e-4, atol=1e-5)
    for name, grad in expected[1].items():
        torch.testing.assert_close(
            actual[1][name], grad, rtol=1e-3, atol=1e-4 * float(grad.abs().max()) + 1e-6
        )


def check(model, sequences):
    batch = pack(sequences)
    chosen = batch['attention_mask'].bool()
    alone = [dict(input_ids=s[None], use_cache=False) for r in sequences for s in r]
    expected = logits_and_gradients(model, alone)
    assert_alike(logits_and_gradients(model, [batch], chosen), expected)
    whole = {k: v[:1] for k, v in batch.items() if k != 'attention_mask'}
    with torch.no_grad():
        logits = model(**whole).logits[0]
    torch.testing.assert_close(logits, expected[0][:11], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('layout', ['attention first', 'pure'])
@pytest.mark.parametrize('family, mixer', FAMILY_MIXERS)
def test_packed_equals_alone(make_hybrid, family, mixer, layout, sequences):
    check(make_hybrid(family, layout, mixer=mixer), sequences)


@pytest.mark.parametrize('implementation', ['sdpa', 'eager'])
@pytest.mark.parametrize(
    'family, fields',
    [
        ('mistral', dict(layer_types=['sliding_attention', MAMBA, MAMBA])),
        ('qwen2', dict(layer_types=['sliding_attention', MAMBA, ATTENTION])),
        ('qwen3', dict(layer_types=[ATTENTION, MAMBA, 'sliding_attention'])),
        ('llama', dict(layer_types=[ATTENTION] * 3)),
    ],
)
def test_windows_and_masks(make_hybrid, family, fields, implementation, sequences):
    if 'sliding_attention' in fields['layer_types']:
        fields = fields | dict(sliding_window=3)
        if family != 'mistral':
            fields |= dict(use_sliding_window=True)
    model = make_hybrid(family, attn_implementation=implementation, **fields)
    check(model, sequences)


def by_lengths(module, query, key, value, attention_mask, scaling=None, **kwargs):
    """The result of FlashAttention for sequences with given ends."""
    assert attention_mask is None
    batch, _, length, _ = query.shape
    repeats = query.shape[1] // key.shape[1]
    flat = [
        part.transpose(1, 2).flatten(0, 1)
        for part in (
            query,
            key.repeat_interleave(repeats, 1),
            value.repeat_interleave(repeats, 1),
        )
    ]
    ends = kwargs['cu_seq_lens_q']
    assert ends.dtype == torch.int32 and ends[-1] == batch * length
    assert torch.equal(ends, kwargs['cu_seq_lens_k'])
    assert kwargs['max_length_q'] == kwargs['max_length_k'] == ends.diff().max()
    outputs = []
    for start, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        q, k, v = (part[start:end].transpose(0, 1) for part in flat)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling)
        outputs.append(out.transpose(0, 1))
    return torch.cat(outputs).unflatten(0, (batch, length)), None


@pytest.mark.parametrize('family', ['llama', 'qwen2'])
def test_flash_attention_is_told_the_sequences(make_hybrid, family, sequences):
    AttentionInterface.register('flash_like', by_lengths)
    model = make_hybrid(family)
    batch = pack(sequences)
    chosen = batch['attention_mask'].bool()
    with torch.no_grad():
        expected = model(**batch).logits[chosen]
        model.config._attn_implementation = 'flash_like'
        torch.testing.assert_close(
            model(**batch).logits[chosen], expected, rtol=1e-4, atol=1e-5
        )
        batch['attention_mask'][0, 7] = 0
        with pytest.raises(ValueError, match='padding between its tokens'):
            model(**batch)


def test_there_is_no_cache(make_hybrid, sequences):
    model = make_hybrid()
    batch = pack(sequences)
    assert returned_cache(model(**batch)) is None
    cache = DynamicCache(config=model.config)
    for wish in (as_argument(cache), dict(use_cache=True)):
        with pytest.raises(ValueError, match='no common state that a cache could keep'):
            model(**batch, **wish)
    model(batch['input_ids'], **as_argument(cache))
    positions = torch.tensor([[11, 12, 0]])
    with pytest.raises(ValueError, match='position_ids begin anew within a row'):
        model(batch['input_ids'][:, :3], position_ids=positions, **as_argument(cache))


def test_a_jump_ahead_begins_no_sequence(make_hybrid, sequences):
    """Tokens that were removed, for example those of an image."""
    model = make_hybrid()
    ids = sequences[0][2][None]
    positions = torch.tensor([[0, 1, 2, 9, 10, 11]])
    with torch.no_grad():
        cached = model(ids, position_ids=positions)
        plain = model(ids, position_ids=positions, use_cache=False)
        rows = dict(position_ids=positions, attention_mask=torch.ones_like(ids))
        masked = model(ids, **rows, use_cache=False)
        # And beside padding, whose position is no jump of a sequence.
        rows = {key: F.pad(value, (2, 0)) for key, value in rows.items()}
        padded = model(F.pad(ids, (2, 0)), **rows, use_cache=False)
    assert returned_cache(cached) is not None
    torch.testing.assert_close(plain.logits, cached.logits)
    torch.testing.assert_close(masked.logits, cached.logits)
    torch.testing.assert_close(
        padded.logits[:, 2:], cached.logits, rtol=1e-4, atol=1e-5
    )


def test_gradient_checkpointing(make_hybrid, sequences):
    batch = pack(sequences)
    chosen = batch['attention_mask'].bool()
    expected = logits_and_gradients(make_hybrid(), [batch], chosen)
    model = make_hybrid().train()
    model.gradient_checkpointing_enable()
    assert_alike(logits_and_gradients(model, [batch], chosen), expected)


@pytest.mark.usefixtures('compilable')
def test_one_graph_tells_sequences_apart(make_hybrid, sequences):
    model = make_hybrid()
    batch = pack(sequences)
    batch['attention_mask'][0, 7] = 0  # within a sequence
    chosen = batch['attention_mask'].bool()
    expected = logits_and_gradients(model, [batch], chosen)
    torch.compiler.reset()
    model.compile(backend='eager', fullgraph=True)
    assert_alike(logits_and_gradients(model, [batch], chosen), expected)
    assert returned_cache(model(**batch)) is None
    with pytest.raises(RuntimeError, match='no common state that a cache could keep'):
        model(**batch, use_cache=True)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('slowest', [-30.0, 0.0])
@pytest.mark.parametrize('mixer', MIXERS)
def test_beginning_anew_equals_rows_of_their_own(make_hybrid, mixer, slowest, dtype):
    """Also where a state would be kept for ever."""
    model = make_hybrid(mixer=dict(type=mixer, in_bias=True))
    mixer = cast_parameters(model, dtype).model.layers[1].self_attn
    if hasattr(mixer, 'A_log'):
        nn.init.constant_(mixer.A_log, slowest)
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randn(3, 40, 32, generator=generator).to(dtype)
    begins = torch.rand(3, 40, generator=generator) < 0.2
    begins[1] = False
    begins[2] = True
    steps = torch.arange(40)
    positions = steps - steps.where(begins, 0).cummax(-1).values
    is_token = torch.rand(3, 40, generator=generator) < 0.8
    expected, _ = mixer(tokens, packing=find_packing(positions, is_token))
    actual, _ = mixer(tokens, packing=trace_packing(positions, is_token))
    near = 1e-5 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(actual, expected, rtol=10 * near, atol=near)


@pytest.mark.parametrize(
    'positions, mask, ids',
    [
        ([0, 1, 2, 3], None, None),
        ([5, 6, 9, 20], None, None),
        ([1, 1, 0, 1], [0, 0, 1, 1], None),  # as generate pads
        ([0, 1, 0, 0], [1, 1, 0, 0], None),
        ([0, 1, 0, 2], [1, 1, 0, 1], None),  # padding inside a sequence
        ([0, 0, 0, 1], None, [0, 1, 2, 2]),
        ([3, 4, 0, 1], None, [0, 0, 1, 1]),
        ([0, 1, 7, 0], [1, 1, 0, 1], [0, 0, 0, 1]),  # padding between two
        ([0, 0, 1, 0], [0, 1, 1, 1], [0, 0, 0, 1]),
    ],
)
def test_where_sequences_begin(positions, mask, ids):
    mask = None if mask is None else torch.tensor([mask]).bool()
    packing = find_packing(torch.tensor([positions]), mask)
    assert (packing and packing.ids.tolist()) == (ids and [ids])


def test_short_sequences_are_not_padded_to_the_longest():
    lengths = [500, *range(1, 40)] * 2
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    packing = find_packing(positions, None)
    assert sum(group.numel() for group in packing.groups) < 2 * positions.numel()
    numbers = torch.arange(positions.numel())[None, :, None].float()
    sums = packing.apply(lambda x: x.cumsum(1), numbers)
    expected = [s.cumsum(0) for s in numbers[0].split(lengths)]
    assert torch.equal(sums[0], torch.cat(expected))
