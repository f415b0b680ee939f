"""Several conversations in one row."""

import pytest
import torch
from mmengine.registry import FUNCTIONS
from PIL import Image
from tiny_vlms import tiny_llava, tiny_processor

from mmtransmamba.datasets.conversations import (
    Conversation,
    Turn,
    collate_conversations,
    encode,
    pack_conversations,
)
from mmtransmamba.datasets.conversations.packing import fill_rows, join
from mmtransmamba.transfer.convert import convert


@pytest.fixture(scope='module')
def samples():
    processor = tiny_processor()
    found = []
    for i in range(6):
        images = [Image.new('RGB', (20, 20), (i * 40, 90, 10 * i))] * (i % 3)
        turns = [
            Turn('user', '<image>' * len(images) + 'Is it' + ' very' * i + ' red?'),
            Turn('assistant', 'No' * (i + 1)),
        ]
        found.append(encode(processor, Conversation(turns, images)))
    return found


def test_row(samples):
    row = join(samples[:3])
    lengths = [sample['length'] for sample in samples[:3]]
    assert len(row['input_ids']) == sum(lengths)
    assert row['position_ids'].tolist() == sum((list(range(n)) for n in lengths), [])
    parts = row['input_ids'].split(lengths)
    for part, sample in zip(parts, samples, strict=False):
        assert torch.equal(part, sample['input_ids'])
    assert len(row['pixel_values']) == 0 + 1 + 2
    assert torch.equal(row['pixel_values'][0], samples[1]['pixel_values'][0])
    assert 'attention_mask' not in row
    assert 'pixel_values' not in join(samples[:1])


def test_first_token_is_not_predicted():
    """It would be, from the last token of the conversation before."""
    sample = dict(input_ids=torch.tensor([5, 6]), labels=torch.tensor([5, 6]))
    assert join([sample, sample])['labels'].tolist() == [-100, 6, -100, 6]
    assert sample['labels'].tolist() == [5, 6]


def of_length(*lengths):
    return [dict(input_ids=torch.zeros(n), n=n) for n in lengths]


def sizes(rows):
    return [[sample['n'] for sample in row] for row in rows]


def test_first_row_with_room():
    rows = fill_rows(of_length(6, 5, 4, 3, 2), 10)
    assert sizes(rows) == [[6, 4], [5, 3, 2]]
    with pytest.raises(ValueError, match='11 tokens does not fit into a row of 10'):
        list(fill_rows(of_length(3, 11), 10))


def test_few_rows_are_open():
    seen = []

    def source():
        for sample in of_length(6, 8, 7, 3, 2, 9, 4):
            seen.append(sample['n'])
            yield sample

    rows = fill_rows(source(), 10, open_rows=2)
    assert sizes([next(rows)]) == [[8]]  # the fullest of three
    assert seen == [6, 8, 7]
    assert sizes(rows) == [[6, 3], [7, 2], [9], [4]]


def test_packed_batch(samples):
    batch = pack_conversations(samples, length=160, pad_token=3)
    assert set(batch) == {'input_ids', 'labels', 'position_ids', 'pixel_values'}
    shape = batch['input_ids'].shape
    assert shape[0] < len(samples)
    assert shape[1] <= 160
    assert batch['labels'].shape == batch['position_ids'].shape == shape
    # Each position 0 begins a sample, or the padding of a row.
    padded = batch['input_ids'] == 3
    begins = (batch['position_ids'] == 0).sum()
    assert begins == len(samples) + padded.any(1).sum()
    assert (batch['labels'][padded] == -100).all()
    learned = sum((sample['labels'] != -100).sum() for sample in samples)
    assert (batch['labels'] != -100).sum() == learned
    # The images are in the order of their tokens.
    order = [row for row in batch['input_ids']]
    assert sum((row == 4).sum() for row in order) == 4 * len(batch['pixel_values'])


def test_rows_of_a_stream_stay_as_they_are(samples):
    rows = [join(samples[:2]), join(samples[2:3])]
    batch = pack_conversations(rows, length=160)
    for i, row in enumerate(rows):
        length = len(row['input_ids'])
        assert torch.equal(batch['input_ids'][i, :length], row['input_ids'])
        assert torch.equal(batch['position_ids'][i, :length], row['position_ids'])


def losses(model, batch):
    """Negative log-likelihood of each learned token, the smallest first."""
    inputs = {key: value for key, value in batch.items() if key != 'labels'}
    logits = model(**inputs, use_cache=False).logits
    labels = batch['labels'][:, 1:]
    each = torch.nn.functional.cross_entropy(
        logits[:, :-1].transpose(1, 2), labels, reduction='none'
    )
    return each[labels != -100].sort()[0]


def plain(attention):
    model = tiny_llava(max_position_embeddings=512)
    model.set_attn_implementation(attention)
    return model


def hybrid(ratio):
    return convert(plain('sdpa'), layers='interleaved', ratio=ratio)[0]


@pytest.mark.parametrize(
    'build, setting',
    [(plain, 'sdpa'), (plain, 'eager'), (hybrid, 0.5), (hybrid, 1.0)],
)
def test_same_loss_and_gradients_as_unpacked(samples, build, setting):
    model = build(setting).float()
    packed = pack_conversations(samples, length=160)
    assert len(packed['labels']) < len(samples)
    results = []
    for batch in (collate_conversations(samples), packed):
        model.zero_grad()
        each = losses(model, batch)
        each.mean().backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        results.append([each.detach(), *gradients])
    for alone, together in zip(*results, strict=True):
        torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-5)
    # It is the positions that keep the conversations apart.
    length = packed['labels'].shape[1]
    packed['position_ids'] = torch.arange(length).expand_as(packed['labels'])
    assert (losses(model, packed) - results[0][0]).abs().max() > 1e-3


def test_registered():
    assert FUNCTIONS.get('mmtransmamba.pack_conversations') is pack_conversations
    assert FUNCTIONS.get('mmtransmamba.collate_conversations') is (
        collate_conversations
    )


# -------------------------------------------------------------------- unpacked


def test_padding(samples):
    for side, pad in (('right', 0), ('left', 9)):
        batch = collate_conversations(samples[:3], pad_token=pad, side=side)
        longest = max(sample['length'] for sample in samples[:3])
        for i, sample in enumerate(samples[:3]):
            where = batch['attention_mask'][i].bool()
            assert torch.equal(batch['input_ids'][i][where], sample['input_ids'])
            assert torch.equal(batch['labels'][i][where], sample['labels'])
            assert (batch['input_ids'][i][~where] == pad).all()
            assert (batch['labels'][i][~where] == -100).all()
            rest = longest - sample['length']
            padding = where[:rest] if side == 'left' else where[longest - rest :]
            assert not padding.any()
        assert len(batch['pixel_values']) == 3
    assert 'pixel_values' not in collate_conversations(samples[:1])
    assert torch.equal(
        collate_conversations(samples)['labels'],
        collate_conversations(samples, side='right')['labels'],
    )


def test_padding_is_refused(samples):
    with pytest.raises(ValueError, match="got 'top'"):
        collate_conversations(samples, side='top')
    prompt = {k: v for k, v in samples[0].items() if k != 'labels'}
    with pytest.raises(ValueError, match='1 of the 2 samples have labels'):
        collate_conversations([samples[0], prompt])
