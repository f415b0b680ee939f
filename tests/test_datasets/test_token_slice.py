"""Consecutive samples of another dataset."""

import pytest
from markov_tokens import MarkovTokens

from mmtransmamba.datasets import Slice

SOURCE = dict(type='mmtransmamba.MarkovTokens', num_samples=6, length=4, vocab_size=9)


def test_two_slices_divide_a_dataset():
    whole = MarkovTokens(num_samples=6, length=4, vocab_size=9)
    first, second = Slice(SOURCE, stop=4), Slice(whole, start=4)
    assert (len(first), len(second)) == (4, 2)
    parts = [*(first[i] for i in range(4)), *(second[i] for i in range(2))]
    for part, sample in zip(parts, (whole[i] for i in range(6)), strict=True):
        assert part['input_ids'].tolist() == sample['input_ids'].tolist()
    for index in (4, -1):
        with pytest.raises(IndexError):
            first[index]


@pytest.mark.parametrize('bounds', [(0, 7), (-1, 2), (3, 3), (4, 2)])
def test_a_slice_must_be_a_part(bounds):
    start, stop = bounds
    with pytest.raises(ValueError, match=f'start={start} and stop={stop}'):
        Slice(SOURCE, start, stop)
