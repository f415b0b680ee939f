"""Attention with a window and sinks: the teacher's own while the window holds all."""

import pytest
import torch
from tiny_decoders import FAMILIES, LENGTH_ROPES, tiny_teacher, tokens
from torch.nn import functional as F

from mmtransmamba.models.language.cache_names import as_argument, returned_cache
from mmtransmamba.models.language.mixers.rotary import frequencies
from mmtransmamba.transfer.convert import convert

ROPES = [
    None,
    dict(rope_type='linear', factor=2.0, rope_theta=1e4),
    dict(
        rope_type='llama3',
        factor=8.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=16,
        rope_theta=1e4,
    ),
    *LENGTH_ROPES,
]
KINDS = ['default', 'linear', 'llama3', 'dynamic', 'longrope']


def converted(family='llama', layers=(0, 2), **mixer):
    teacher = tiny_teacher(family)
    fields = dict(type='SlidingWindow', **mixer)
    return teacher, convert(teacher, list(layers), mixer=fields)[0]


@pytest.mark.parametrize('layers', [(0, 2), (0, 1, 2)], ids=['mixed', 'pure'])
@pytest.mark.parametrize('family', FAMILIES)
def test_it_is_the_teacher_while_the_context_fits(family, layers):
    teacher, model = converted(family, layers, window=12, sinks=1)
    ids = tokens(2, 12)
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, teacher(ids).logits)
        longer = tokens(2, 20)
        difference = model(longer).logits - teacher(longer).logits
    assert difference[:, :12].abs().max() < 1e-4
    assert difference[:, 14:].abs().max() > 1e-3


@pytest.mark.parametrize('rope', ROPES[1:], ids=KINDS[1:])
def test_other_rotary_embeddings_are_the_teachers(rope):
    teacher = tiny_teacher(rope_parameters=rope, max_position_embeddings=24)
    model, report = convert(teacher, [0, 1, 2], mixer='SlidingWindow')
    ids = tokens(2, 40)
    mask = torch.ones_like(ids)
    mask[0, :7] = 0
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, teacher(ids).logits)
        short = model(ids[:, :12]).logits
        torch.testing.assert_close(short, teacher(ids[:, :12]).logits)
        expected = teacher(ids, attention_mask=mask, position_ids=positions).logits
        found = model(ids, attention_mask=mask).logits
        torch.testing.assert_close(found[0, 7:], expected[0, 7:])
    assert not report.unused


@pytest.mark.parametrize('rope', ROPES[3:], ids=KINDS[3:])
@pytest.mark.parametrize('packed', [False, True])
def test_frequencies_are_those_of_what_a_window_sees(rope, packed):
    teacher = tiny_teacher(rope_parameters=rope, max_position_embeddings=24)
    mixer = dict(type='SlidingWindow', window=26, sinks=2)
    model = convert(teacher, [0, 1, 2], mixer=mixer)[0]
    ids = tokens(2, 60)
    with torch.no_grad():
        whole = model(ids).logits
        if packed:
            both = dict(
                input_ids=torch.cat((ids[:1], ids[1:, :40]), dim=1),
                position_ids=torch.cat((torch.arange(60), torch.arange(40)))[None],
            )
            found = model(**both).logits
            torch.testing.assert_close(found[:, :60], whole[:1], rtol=1e-3, atol=1e-4)
            short = model(ids[1:, :40]).logits
            torch.testing.assert_close(found[:, 60:], short, rtol=1e-3, atol=1e-4)
            return
        output = model(ids[:, :40], use_cache=True)
        given = as_argument(returned_cache(output))
        rest = model(ids[:, 40:], **given).logits
    torch.testing.assert_close(output.logits, whole[:, :40], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(rest, whole[:, 40:], rtol=1e-3, atol=1e-4)


def slow(own, hidden):
    """The definition, one query at a time, of a row ``[L, C]``."""
    rates, scale = frequencies(own.config, hidden.device)

    def rotate(x, position):
        half = len(rates)
        turn = torch.polar(torch.full((half,), scale), position * rates)
        turned = torch.complex(x[..., :half], x[..., half:]) * turn
        return torch.cat((turned.real, turned.imag), -1)

    q, k, v = (
        p(hidden).unflatten(-1, (-1, own.head_dim))
        for p in (own.q_proj, own.k_proj, own.v_proj)
    )
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    outputs = []
    for i in range(len(hidden)):
        scores, values = [], []
        for j in range(i + 1):
            if j < own.sinks:
                distance = min(i, own.window + own.sinks - 1) - j
            elif i - j < own.window:
                distance = i - j
            else:
                continue
            turned = rotate(q[i], distance)
            scores.append((turned * k[j]).sum(-1) / own.head_dim**0.5)
            values.append(v[j])
        weights = torch.stack(scores).softmax(0)
        outputs.append((weights[..., None] * torch.stack(values)).sum(0).flatten())
    return own.out_proj(torch.stack(outputs))


@pytest.mark.parametrize('window, sinks', [(3, 2), (5, 1), (1, 1), (4, 6), (64, 4)])
@pytest.mark.parametrize('length', [1, 7, 23])
def test_it_is_its_definition(window, sinks, length):
    _, model = converted(window=window, sinks=sinks)
    own = model.model.layers[0].self_attn
    hidden = torch.randn(2, length, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = torch.stack([slow(own, row) for row in hidden])
        torch.testing.assert_close(own(hidden)[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('window, sinks', [(3, 2), (4, 6)])
@pytest.mark.parametrize('layers', [(0, 2), (0, 1, 2)], ids=['mixed', 'pure'])
def test_pieces_padding_and_packing_change_nothing(layers, window, sinks):
    """Sequences far longer than the window; the cache stays as long as that."""
    _, model = converted('qwen3', layers, window=window, sinks=sinks)
    ids, pads = tokens(2, 30), (0, 5)
    with torch.no_grad():
        whole = model(ids).logits
        cache, pieces, sizes = None, [], set()
        for part in ids.split((2, 1, 11, 1, 1, 14), dim=1):
            out = model(part, use_cache=True, **as_argument(cache))
            cache = returned_cache(out)
            pieces.append(out.logits)
            sizes.add(cache.layers[0].recurrent_states[0].shape[1])
        assert sizes == {window + sinks - 1}
        torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-3, atol=1e-4)
        padded = torch.stack(
            [F.pad(row, (pad, 5 - pad)) for row, pad in zip(ids, pads, strict=True)]
        )
        mask = torch.zeros_like(padded)
        for row, pad in enumerate(pads):
            mask[row, pad : pad + 30] = 1
        logits = model(padded, attention_mask=mask).logits
        for row, pad in enumerate(pads):
            torch.testing.assert_close(
                logits[row, pad : pad + 30], whole[row], rtol=1e-3, atol=1e-4
            )
        packed = model(
            ids.view(1, -1), position_ids=torch.arange(30).repeat(2)[None]
        ).logits
        torch.testing.assert_close(packed.view_as(whole), whole, rtol=1e-3, atol=1e-4)


def test_rows_that_begin_anew_within_a_graph_are_kept_apart():
    """Where the places of sequences are not read, but traced."""
    _, model = converted(window=3, sinks=2)
    own = model.model.layers[0].self_attn
    hidden = torch.randn(1, 24, 32, generator=torch.Generator().manual_seed(0))
    begins = torch.zeros(1, 24, dtype=torch.bool)
    begins[0, 9] = True
    with torch.no_grad():
        y = own.mix(hidden, lambda *x: own.recur(*x, begins=begins)[0])
        parts = [own(part)[0] for part in hidden.split((9, 15), dim=1)]
    torch.testing.assert_close(y, torch.cat(parts, 1), rtol=1e-4, atol=1e-5)


def test_gradients_reach_all_projections_beyond_the_window():
    _, model = converted('qwen3', window=3, sinks=1)
    ids = tokens(2, 15)
    model.train()(ids, labels=ids).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize('field', ['window', 'sinks'])
def test_sizes_are_positive(field):
    message = f'mixer: {field}=0 of SlidingWindow must be a positive integer'
    with pytest.raises(ValueError, match=message):
        converted(**{field: 0})
