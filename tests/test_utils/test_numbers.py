"""Bounds of the numbers on command lines."""

import argparse

import pytest

from mmtransmamba.utils.numbers import (
    count,
    natural,
    positive,
    real,
    seed_number,
    whole,
)


@pytest.mark.parametrize(
    'kind, text, value',
    [
        (positive, '1', 1),
        (natural, '0', 0),
        (seed_number, '4294967295', 2**32 - 1),
        (whole(-3, 2), '-3', -3),
        (real(0), '0', 0.0),
        (real(above=0, most=1), '1', 1.0),
        (real(above=0), '1e-9', 1e-9),
    ],
)
def test_numbers_within_their_bounds(kind, text, value):
    assert kind(text) == value


@pytest.mark.parametrize(
    'kind, text, message',
    [
        (positive, '0', '"0" must be a whole number, 1 at least'),
        (positive, '-1', '"-1" must be a whole number, 1 at least'),
        (positive, '1.5', '"1.5" must be a whole number, 1 at least'),
        (positive, 'nan', '"nan" must be a whole number, 1 at least'),
        (natural, '-1', '"-1" must be a whole number, 0 at least'),
        (seed_number, '4294967296', '0 at least, 4294967295 at most'),
        (whole(most=2), '3', '"3" must be a whole number, 2 at most'),
        (real(0), 'nan', 'nan is not finite'),
        (real(0), 'inf', 'inf is not finite'),
        (real(0), '-0.1', '"-0.1" must be a number, 0 at least'),
        (real(above=0), '0', '0 must be above 0'),
        (real(above=0, most=1), '1.1', '"1.1" must be a number, 1 at most'),
        (real(0), 'much', '"much" is not a number'),
    ],
)
def test_numbers_beyond_them(kind, text, message):
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        kind(text)


def test_every_number_of_a_tool_has_bounds(repo_dir):
    """But for the rank, which a launcher sets."""
    for folder in ('tools', 'projects'):
        for file in (repo_dir / folder).rglob('*.py'):
            for line in file.read_text().splitlines():
                bare = 'type=int' in line or 'type=float' in line
                assert not bare or 'local_rank' in line, (file, line)


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        *(
            ('1', 1),
            ('500K', 500_000),
            ('1.5m', 1_500_000),
            ('1B', 10**9),
            ('1e6', 10**6),
        ),
        *(('4.1M', 4_100_000), ('8.2M', 8_200_000), ('1.001K', 1001)),
    ],
)
def test_counts_may_have_units(text, value):
    assert count(text) == value


@pytest.mark.parametrize('text', ['0', '-1', '1.5', 'K', '5X', 'nan', 'infM', '0.1K5'])
def test_other_counts_are_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match='a whole number, 1 at least'):
        count(text)
