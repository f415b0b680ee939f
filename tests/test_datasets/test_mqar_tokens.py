"""Associative recall: every query has its pair's value, and nothing else is learned."""

import pytest
import torch

from mmtransmamba.datasets import MQARTokens


@pytest.mark.parametrize(
    'length, pairs, vocab', [(16, 4, 10), (64, 8, 128), (41, 7, 16), (4, 1, 4)]
)
def test_only_the_values_of_queries_are_learned(length, pairs, vocab):
    for sample in MQARTokens(20, length, pairs, vocab):
        ids, labels = sample['input_ids'].tolist(), sample['labels']
        head = ids[: 2 * pairs]
        memory = dict(zip(head[::2], head[1::2], strict=True))
        assert len(memory) == len(set(memory.values())) == pairs
        assert all(0 < key < vocab // 2 <= value for key, value in memory.items())
        places = (labels != -100).nonzero().flatten().tolist()
        assert sorted(ids[i - 1] for i in places) == sorted(memory)
        assert all(labels[i] == ids[i] == memory[ids[i - 1]] for i in places)
        assert places[0] > 2 * pairs
        assert ids[2 * pairs :].count(0) == length - 4 * pairs


def test_samples_depend_on_seed_and_index_only():
    def ids(**options):
        return torch.stack([s['input_ids'] for s in MQARTokens(**options)])

    whole = ids(num_samples=8)
    assert torch.equal(ids(num_samples=3, first=5), whole[5:])
    assert not torch.equal(ids(num_samples=8, seed=1), whole)


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(length=31), 'length=31 must be at least 4 \\* pairs=32'),
        (dict(vocab_size=127), 'vocab_size=127 must be even'),
        (dict(vocab_size=16), 'vocab_size=16 must be even and at least 18'),
        (dict(pairs=0), 'pairs=0 must be positive'),
        (dict(num_samples=0), 'num_samples=0'),
    ],
)
def test_impossible_sizes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MQARTokens(**options)


def test_there_is_no_sample_beyond_the_last():
    with pytest.raises(IndexError, match='sample 2 of 2'):
        MQARTokens(2)[2]
