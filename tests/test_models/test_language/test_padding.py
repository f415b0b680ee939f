"""Padded rows give the same outputs as without padding, wherever it lies."""

import pytest
import torch
from tiny_decoders import FAMILY_MIXERS, MIXERS
from torch import nn
from transformers import DynamicCache, StaticCache

from mmtransmamba.models.language import ATTENTION, MAMBA
from mmtransmamba.models.language.cache_names import as_argument
from mmtransmamba.models.language.config import SLIDING
from mmtransmamba.models.language.padding import has_gaps, places

LAYOUTS = ['attention first', 'mamba first', 'pure']
MODELS = [
    pytest.param(family, mixer, layout, id=f'{family}-{mixer}-{layout}')
    for family, mixer in FAMILY_MIXERS
    for layout in ('mamba first', 'pure')
]
# Which tokens of two rows are none, and the lengths of the pieces they come in.
ROWS = {
    'padding in front': (['....xxxxxxx', 'xxxxxxxxxxx'], None),
    'padding in front, more than the taps see': (['........xx', 'xxxxxxxxxx'], None),
    'padding behind': (['xxxxxxx....', 'xxxxxxxxxxx'], None),
    'padding inside': (['xx..xxx.xxx', '.xxxxx...xx'], None),
    'padding between all': (['x.x.x.x.x.', 'xxxxxxxxx.'], None),
    'padding in front, then steps': (['...xxxxxx', 'xxxxxxxxx'], (6, 1, 1, 1)),
    'padding behind, then steps': (['xxx...xxx', 'xxxxxxxxx'], (6, 1, 1, 1)),
    'padding behind one token': (['x.....xxx', 'xx....xxx'], (6, 1, 2)),
    'padding between turns': (['xxxxx...xxx', '..xxxxxxxxx'], (5, 6)),
    'padding between turns, then steps': (['xxxx..xxx', 'xxxxxx.xx'], (4, 3, 1, 1)),
    'a row that has nothing to say at first': (['.....xxxxx', 'xxxxxxxxxx'], (4, 4, 2)),
    'a row that has nothing to say in a turn': (
        ['xxxx....xx', 'xxxxxxxxxx'],
        (4, 4, 2),
    ),
    'a step of one row': (['xxxx.xx', 'xxxxxxx'], (4, 1, 1, 1)),
    'chunks of a padded prompt': (['.....xxxxxxx', 'xxxxxxxxxxxx'], (3, 3, 3, 3)),
}


def tell(make_hybrid, family, mixer, layout, **fields):
    """A hybrid that has biases everywhere, and a convolution that mixes tokens."""
    model = make_hybrid(
        family,
        layout,
        mixer=dict(type=mixer, in_bias=True, out_bias=True),
        **fields,
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith('bias') and 'dt_proj' not in name:
                parameter.add_(torch.randn_like(parameter))
    return model


def a_mask(rows):
    return torch.tensor([[int(mark == 'x') for mark in row] for row in rows])


def random_ids(mask):
    generator = torch.Generator().manual_seed(3)
    return torch.randint(3, 61, mask.shape, generator=generator)


def alone(model, ids, mask):
    """Logits of all tokens, each row without its padding."""
    with torch.no_grad():
        return torch.cat(
            [
                model(row[kept][None], use_cache=False).logits[0]
                for row, kept in zip(ids, mask.bool(), strict=True)
            ]
        )


def together(model, ids, mask, pieces, cache=None, forward=None):
    forward = model if forward is None else forward
    logits, end = [], 0
    for part in ids.split(pieces or ids.shape[1], dim=1):
        end += part.shape[1]
        kept = dict(use_cache=False) if cache is None else as_argument(cache)
        with torch.no_grad():
            out = forward(part, attention_mask=mask[:, :end], **kept)
        logits.append(out.logits)
    return torch.cat(logits, dim=1)[mask.bool()]


def assert_alike(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('family, mixer, layout', MODELS)
def test_padding_changes_nothing(make_hybrid, family, mixer, layout):
    model = tell(make_hybrid, family, mixer, layout)
    for case, (rows, pieces) in ROWS.items():
        # The token after the last finds what it would find without padding, too.
        mask = a_mask([row + 'x' for row in rows])
        ids = random_ids(mask)
        expected = alone(model, ids, mask)
        pieces = [mask.shape[1] - 1] if pieces is None else pieces
        for kind in (None, DynamicCache, StaticCache):
            config = dict(config=model.config)
            if kind is None:
                if len(pieces) > 1:
                    continue
                actual = together(model, ids, mask, None)
            else:
                config |= dict(max_cache_len=16) if kind is StaticCache else {}
                actual = together(model, ids, mask, [*pieces, 1], kind(**config))
            try:
                assert_alike(actual, expected)
            except AssertionError as error:
                raise AssertionError(f'{case}, {kind}') from error


@pytest.mark.parametrize('mixer', MIXERS)
@pytest.mark.parametrize('layout', LAYOUTS)
def test_positions_may_be_given(make_hybrid, layout, mixer):
    """Positions as in generation, where those of padding are ignored."""
    model = tell(make_hybrid, 'llama', mixer, layout)
    mask = a_mask(['xx..xxx.xxx', '..xxxxx..xx'])
    ids = random_ids(mask)
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    for padding in (0, 7):
        positions = positions.masked_fill(mask == 0, padding)
        with torch.no_grad():
            out = model(ids, attention_mask=mask, position_ids=positions)
        assert_alike(out.logits[mask.bool()], alone(model, ids, mask))


@pytest.mark.parametrize('mixer', MIXERS)
@pytest.mark.parametrize('layout', LAYOUTS)
def test_padding_within_packed_sequences_changes_nothing(make_hybrid, layout, mixer):
    model = tell(make_hybrid, 'qwen2', mixer, layout)
    mask = a_mask(['xx.xxx..xxxx', '.xxxxxxx.x.x'])
    ids = random_ids(mask)
    positions = torch.tensor(
        [[0, 1, 0, 2, 0, 1, 0, 0, 2, 3, 4, 5], [0, 0, 1, 2, 3, 4, 5, 0, 0, 1, 0, 2]]
    )
    spans = [(0, 0, 4), (0, 4, 12), (1, 0, 7), (1, 7, 12)]
    expected = [
        alone(model, ids[row : row + 1, a:b], mask[row : row + 1, a:b])
        for row, a, b in spans
    ]
    with torch.no_grad():
        out = model(ids, attention_mask=mask, position_ids=positions)
    assert_alike(out.logits[mask.bool()], torch.cat(expected))


@pytest.mark.usefixtures('compilable')
@pytest.mark.parametrize(
    'layout, mixer',
    [('attention first', 'Mamba2'), ('pure', 'Mamba2'), ('pure', 'Mamba')],
)
def test_a_compiled_model_passes_over_padding_too(make_hybrid, layout, mixer):
    """Though it cannot look where there is any."""
    kinds = dict(
        zip(LAYOUTS, ([ATTENTION, MAMBA], [MAMBA, ATTENTION], [MAMBA] * 2), strict=True)
    )
    fields = dict(num_hidden_layers=2, layer_types=kinds[layout])
    model = tell(make_hybrid, 'llama', mixer, layout, **fields)
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend='eager', dynamic=False)
    mask = a_mask(['x.xx.x', 'xxxx.x'])
    ids = random_ids(mask)
    cache = StaticCache(config=model.config, max_cache_len=8)
    # A cache that has been used has its tensors, which a graph does not make.
    together(model, ids, mask, None, cache)
    cache.reset()
    actual = together(model, ids, mask, (5, 1), cache, compiled)
    assert_alike(actual, alone(model, ids, mask))


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('mixer', MIXERS)
def test_a_padded_prompt_in_pieces_of_one_token(make_hybrid, mixer, layout):
    """They are no steps of a generation, whose tokens are never padding."""
    model = tell(make_hybrid, 'llama', mixer, layout)
    mask = a_mask(['.....xxx', 'xxxxxxxx', '..xxxxxx'])
    how = dict(max_new_tokens=2, output_logits=True, return_dict_in_generate=True)
    given = dict(input_ids=random_ids(mask), attention_mask=mask, do_sample=False)
    whole = model.generate(**given, **how).logits
    pieces = model.generate(**given, **how, prefill_chunk_size=1).logits
    for one, other in zip(pieces, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('family', ['mistral', 'qwen2', 'qwen3'])
@pytest.mark.parametrize('window', [4, 10, 11])
def test_padding_between_tokens_is_none_of_a_window(make_hybrid, family, window):
    more = {} if family == 'mistral' else dict(use_sliding_window=True)
    fields = dict(sliding_window=window, layer_types=[SLIDING, MAMBA, MAMBA], **more)
    model = make_hybrid(family, 'mamba first', num_hidden_layers=3, **fields)
    before, behind = a_mask(['....xxxxxxx']), a_mask(['xxxxxxx....'])
    between = a_mask(['xxxx....xxx'])
    ids = random_ids(before)
    expected = model(ids[:, 4:]).logits
    for mask in (before, between, behind):
        row = torch.zeros_like(ids)
        row[mask.bool()] = ids[0, 4:]
        for first in (None, 8):
            if mask is between and window < mask.shape[1]:
                with pytest.raises(ValueError, match=f'among their {window} tokens'):
                    said(model, row, mask, first)
            else:
                logits = said(model, row, mask, first)[mask.bool()]
                torch.testing.assert_close(logits, expected[0], rtol=1e-4, atol=1e-4)


def said(model, row, mask, first):
    """Logits of a row, in one piece or in two."""
    if first is None:
        return model(row, attention_mask=mask).logits
    cache = DynamicCache(config=model.config)
    parts = [
        model(row[:, a:b], attention_mask=mask[:, :b], **as_argument(cache)).logits
        for a, b in ((0, first), (first, None))
    ]
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize('family, mixer, layout', MODELS)
def test_generation_goes_on_over_padding(make_hybrid, family, mixer, layout):
    """In turns of different lengths, prompts in chunks, ids or embeddings."""
    model = tell(make_hybrid, family, mixer, layout)
    how = dict(max_new_tokens=4, min_new_tokens=4, do_sample=False)
    first, second = a_mask(['..xxxxx', 'xxxxxxx']), a_mask(['...xx', 'xxxxx'])
    ids, more = random_ids(first), random_ids(second)
    expected = []
    for row in range(2):
        said = ids[row][first[row].bool()][None]
        answers = []
        for turn in (None, more[row][second[row].bool()][None]):
            said = said if turn is None else torch.cat((said, turn), dim=1)
            mask = torch.ones_like(said)
            out = model.generate(said, attention_mask=mask, use_cache=False, **how)
            answers.append(out[0, said.shape[1] :])
            said = out
        expected.append(torch.cat(answers))
    expected = torch.stack(expected)
    for chunk in (None, 3):
        for cache in (
            DynamicCache(config=model.config),
            StaticCache(config=model.config, max_cache_len=32),
        ):
            kept = dict(prefill_chunk_size=chunk) | as_argument(cache)
            one = model.generate(ids, attention_mask=first, **how, **kept)
            mask = torch.cat((first, first.new_ones(2, 4), second), dim=1)
            prompt = torch.cat((one, more), dim=1)
            two = model.generate(prompt, attention_mask=mask, **how, **kept)
            actual = torch.cat((one[:, 7:], two[:, 16:]), dim=1)
            assert torch.equal(actual, expected), (chunk, type(cache).__name__)
    embeds = model.get_input_embeddings()(ids)
    for more in ({}, dict(cache_implementation='static')):
        out = model.generate(inputs_embeds=embeds, attention_mask=first, **how, **more)
        assert torch.equal(out, expected[:, :4])


@pytest.mark.parametrize('family, mixer, layout', MODELS)
def test_embeddings_go_on_from_a_cache(make_hybrid, family, mixer, layout):
    model = tell(make_hybrid, family, mixer, layout)
    rows, pieces = ROWS['padding between turns, then steps']
    mask = a_mask(rows)
    ids = random_ids(mask)

    def forward(part, **kwargs):
        return model(inputs_embeds=model.get_input_embeddings()(part), **kwargs)

    cache = DynamicCache(config=model.config)
    actual = together(model, ids, mask, pieces, cache, forward)
    assert_alike(actual, alone(model, ids, mask))


@pytest.mark.parametrize('layout', ['attention first', 'pure'])
def test_an_answer_behind_padding_is_refused(make_hybrid, layout):
    model = make_hybrid('llama', layout)
    mask = a_mask(['xxxx', 'xx..'])
    with pytest.raises(ValueError, match='pad on the left'):
        model.generate(random_ids(mask), attention_mask=mask, max_new_tokens=2)


@pytest.mark.parametrize(
    'mask, message',
    [
        (torch.ones(2, 1, 5, 5), r'attention_mask \[2, 1, 5, 5\]: .*must be \[B, L\]'),
        (torch.ones(2, 4), r'attention_mask \[2, 4\] is for another number of tokens'),
        (dict(full_attention=None), "need 'linear_attention'"),
    ],
)
@pytest.mark.parametrize('layout', ['attention first', 'pure'])
def test_a_mask_that_mamba_layers_cannot_follow_is_refused(
    make_hybrid, layout, mask, message
):
    model = make_hybrid('llama', layout)
    with pytest.raises(ValueError, match=message):
        model(torch.ones(2, 5, dtype=torch.long), attention_mask=mask)


def test_a_mask_of_the_new_tokens_alone_is_refused(make_hybrid):
    """Attention would take it for that of the first tokens."""
    model = make_hybrid('llama')
    cache = DynamicCache(config=model.config)
    ids = torch.ones(2, 3, dtype=torch.long)
    model(ids, **as_argument(cache))
    with pytest.raises(ValueError, match='than the 3 given and the 3 in the cache'):
        model(ids, attention_mask=torch.ones(2, 3), **as_argument(cache))


@pytest.mark.parametrize(
    'row, alone, kept',
    [
        ('xxxx', False, False),
        ('..xx', False, False),
        ('xx..', False, True),
        ('x.x.', True, True),
        ('.x.x', True, True),
        ('....', False, False),
    ],
)
def test_gaps_are_padding_behind_a_token(row, alone, kept, make_hybrid):
    model = make_hybrid('llama', 'pure')
    mask = a_mask([row, 'xxxx']).bool()
    cache = DynamicCache(config=model.config)
    assert has_gaps(mask, None, 0) is alone
    assert has_gaps(mask, cache, 0) is kept
    model(torch.ones(2, 1, dtype=torch.long), **as_argument(cache))
    assert has_gaps(mask, cache, 0) is True


def test_padding_is_moved_in_front():
    mask = a_mask(['x..xx.', 'xxxxxx']).bool()
    assert places(mask, 2).tolist() == [[3, 4, 5, 0, 1, 6, 7, 2], [*range(8)]]


def test_rows_without_padding_are_not_moved(make_hybrid, monkeypatch):
    """Nor with padding in front only, where a prompt begins."""
    from mmtransmamba.models.language.mixers import base

    moved = []

    def counted(*args):
        moved.append(args)
        return places(*args)

    monkeypatch.setattr(base, 'places', counted)
    model = make_hybrid('llama', 'mamba first')
    for rows in (['xxxxx', 'xxxxx'], ['..xxx', 'xxxxx']):
        mask = a_mask(rows)
        model.generate(random_ids(mask), attention_mask=mask, max_new_tokens=3)
    assert not moved
    model(random_ids(mask), attention_mask=mask.flip(-1), use_cache=False)
    assert not moved
    model(random_ids(mask), attention_mask=mask.flip(-1))
    assert moved


def test_what_padding_holds_does_not_matter(make_hybrid):
    """Not even if it is not finite."""
    mixer = make_hybrid('llama', 'pure').model.layers[0].self_attn
    nn.init.constant_(mixer.conv1d.bias, 3.0)
    mask = a_mask(['xx.xx', '...xx'])
    tokens = torch.randn(2, 5, 32)
    with torch.no_grad():
        expected = mixer(tokens, padding_mask=mask)[0]
        tokens[mask == 0] = float('nan')
        actual = mixer(tokens, padding_mask=mask)[0]
    assert torch.equal(actual[mask.bool()], expected[mask.bool()])
