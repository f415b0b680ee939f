"""Conversations from files, one after another."""

import pickle
from collections import Counter
from functools import partial
from itertools import islice

import pytest
import torch
from conversation_files import (
    llava_row,
    write_images,
    write_json,
    write_jsonl,
    write_processor,
)
from tiny_vlms import tiny_tokenizer
from torch.utils.data import DataLoader

from mmtransmamba.datasets.conversations import (
    ConversationStream,
    collate_conversations,
    pack_conversations,
    stream,
)


@pytest.fixture
def folder(tmp_path):
    write_images(tmp_path, 4)
    write_processor(tmp_path / 'processor')
    return tmp_path


def rows(count, name='a'):
    return [
        llava_row(0, f'{i % 4}.png' if i % 2 else None, f'{name}{i}')
        for i in range(count)
    ]


def stream_of(folder, files, **kwargs):
    return ConversationStream(files, str(folder / 'processor'), **kwargs)


def answer(sample):
    labels = sample['labels']
    return tiny_tokenizer().decode(labels[labels >= 0]).removesuffix('</s>')


def answers(samples):
    return [answer(sample) for sample in samples]


@pytest.mark.parametrize('longest', [None, 151, 4096])
def test_samples_longer_than_a_row_are_refused_before_any_is_read(folder, longest):
    file = write_json(folder / 'x.json', rows(3))
    with pytest.raises(ValueError, match=f'max_length={longest} must be at most'):
        stream_of(folder, file, pack_length=150, max_length=longest)
    assert stream_of(folder, file, pack_length=150, max_length=150)


def test_length(folder):
    file = write_json(folder / 'x.json', rows(3))
    loader = DataLoader(stream_of(folder, file), batch_size=4)
    assert len(loader) > 10**15
    with pytest.raises(TypeError, match='repeat=False.* no known length'):
        len(stream_of(folder, file, repeat=False))


@pytest.mark.parametrize('write', [write_json, write_jsonl])
def test_order_of_the_file(write, folder):
    file = write(folder / 'x.json', rows(9))
    once = stream_of(folder, file, shuffle_buffer=1, repeat=False)
    assert answers(once) == [f'a{i}' for i in range(9)]
    assert 'pixel_values' in list(once)[1]
    for_ever = stream_of(folder, file, shuffle_buffer=1)
    assert answers(islice(for_ever, 20)) == [f'a{i % 9}' for i in range(20)]


def test_shuffled_by_seed(folder):
    file = write_jsonl(folder / 'x.jsonl', rows(30))
    kwargs = dict(repeat=False, shuffle_buffer=10)
    one, same, other = (
        answers(stream_of(folder, file, seed=seed, **kwargs)) for seed in (0, 0, 1)
    )
    assert one == same != other
    assert sorted(one) == sorted(other) == sorted(f'a{i}' for i in range(30))
    assert one != [f'a{i}' for i in range(30)]
    # A buffer of ten lets no row come more than nine places early.
    assert all(int(text[1:]) - place < 10 for place, text in enumerate(one))


def test_workers_and_processes_share_the_rows(folder, monkeypatch):
    file = write_jsonl(folder / 'x.jsonl', rows(23))
    seen = []
    for rank in range(2):
        monkeypatch.setattr(stream, 'get_dist_info', lambda r=rank: (r, 2))
        each = stream_of(folder, file, repeat=False, shuffle_buffer=4)
        loader = DataLoader(each, None, num_workers=2)
        seen.append(answers(loader))
        assert answers(loader) == seen[-1]  # again the same
    assert sorted(seen[0] + seen[1]) == sorted(f'a{i}' for i in range(23))
    assert abs(len(seen[0]) - len(seen[1])) <= 2


def test_weights(folder):
    files = [
        dict(file=write_jsonl(folder / 'a.jsonl', rows(5, 'a')), weight=3),
        dict(file=write_jsonl(folder / 'b.jsonl', rows(50, 'b')), weight=1),
    ]
    drawn = answers(islice(stream_of(folder, files, shuffle_buffer=1), 200))
    assert 125 < Counter(text[0] for text in drawn)['a'] < 175
    # Several files share the weight of their entry.
    for shard in range(4):
        write_jsonl(folder / f'c{shard}.jsonl', rows(5, 'c'))
    shards = dict(file=str(folder / 'c*.jsonl'), weight=1)
    drawn = answers(islice(stream_of(folder, [shards, files[1]]), 200))
    assert 75 < Counter(text[0] for text in drawn)['c'] < 125
    # By default as many of each as it has, about.
    files = [entry['file'] for entry in files]
    drawn = answers(islice(stream_of(folder, files, shuffle_buffer=1), 200))
    assert 5 < Counter(text[0] for text in drawn)['a'] < 40
    # Without repetition all of all files come once.
    drawn = answers(stream_of(folder, files, repeat=False))
    assert Counter(text[0] for text in drawn) == dict(a=5, b=50)
    with pytest.raises(ValueError, match="may have .*'weight'"):
        stream_of(folder, dict(file=files[0], ratio=2))


def test_packed(folder):
    file = write_jsonl(folder / 'x.jsonl', rows(40))
    packed = stream_of(folder, file, pack_length=150, repeat=False)
    assert packed.encoder.max_length == 150
    collate = partial(pack_conversations, length=150)
    batches = list(DataLoader(packed, 2, num_workers=2, collate_fn=collate))
    said = Counter()
    for batch in batches:
        assert batch['input_ids'].shape[1] <= 150
        starts = (batch['position_ids'] == 0).nonzero().tolist()
        for row, begin in starts:
            labels = batch['labels'][row, begin:]
            ends = [b for r, b in starts if r == row and b > begin]
            text = answer(dict(labels=labels[: min(ends) - begin if ends else None]))
            said[text] += 1
    said.pop('', None)  # padding
    assert said == {f'a{i}': 1 for i in range(40)}
    rows_used = sum(len(batch['input_ids']) for batch in batches)
    assert rows_used < 40 / 2


def test_bad_samples(folder):
    bad = [llava_row(0, 'gone.png'), llava_row(0, answer=''), 'text', 'text']
    file = write_jsonl(folder / 'x.jsonl', rows(10) + bad)
    each = stream_of(folder, file, repeat=False, shuffle_buffer=3)
    loader = DataLoader(each, 2, num_workers=2, collate_fn=collate_conversations)
    assert sum(len(batch['labels']) for batch in loader) == 10
    assert each.bad_samples.report() == (
        'ConversationStream of x.jsonl: 4 of 14 samples are bad '
        '(2 unreadable row, 1 empty answer, 1 missing image).'
    )


def test_too_many_bad_samples(folder):
    bad = [llava_row(0, 'gone.png')] * 3
    file = write_jsonl(folder / 'x.jsonl', rows(97) + bad)
    list(stream_of(folder, file, repeat=False, max_bad=0.03))
    with pytest.raises(ValueError, match='3 of 100 samples are bad.*at most 2.00%'):
        list(
            stream_of(folder, file, repeat=False, max_bad=0.02, shuffle_buffer=1),
        )
    # A stream of nothing else ends as well.
    file = write_jsonl(folder / 'y.jsonl', bad)
    with pytest.raises(ValueError, match='100 of 100 samples are bad'):
        next(iter(stream_of(folder, file)))


def test_too_many_workers(folder, monkeypatch):
    file = write_jsonl(folder / 'x.jsonl', rows(2))
    monkeypatch.setattr(stream, '_shard', lambda: (2, 3))
    with pytest.raises(ValueError, match='has no row for worker 2 of 3'):
        next(iter(stream_of(folder, file)))


def test_settings(folder):
    file = write_jsonl(folder / 'x.jsonl', rows(2))
    with pytest.raises(ValueError, match='shuffle_buffer=0 is less than 1'):
        stream_of(folder, file, shuffle_buffer=0)
    with pytest.raises(ValueError, match=r'max_bad must be in \[0, 1\)'):
        stream_of(folder, file, max_bad=2)


def test_copy(folder):
    file = write_jsonl(folder / 'x.jsonl', rows(3))
    each = stream_of(folder, file, repeat=False)
    copy = pickle.loads(pickle.dumps(each))
    for one, two in zip(each, copy, strict=True):
        assert torch.equal(one['input_ids'], two['input_ids'])
