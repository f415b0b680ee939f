"""Values of ``--cfg-options``, beside those that mmengine reads from the same text."""

import pytest
from mmengine.config import DictAction

from mmtransmamba.utils.key_values import parse_value

VALUES = [
    *('1', '-3', '1.5', '1e-3', 'true', 'False', 'None', 'none', 'AdamW', '', 'a=b'),
    *('1,2', '[1,2]', '(1,2)', '[1, 2]', '[]', '()', '[a]', '(a,)', '1,', ',1'),
    *('[(1,2),[3,4]]', '[(1,2),x]', '"[a,b]"', "'x'", '[[1]]', '/a/b'),
]


@pytest.mark.parametrize('text', VALUES)
def test_is_what_mmengine_reads(text):
    expected = DictAction._parse_iterable(text)
    value = parse_value(text)
    assert value == expected and type(value) is type(expected)


def test_a_list_of_tuples_needs_no_brackets_of_its_own():
    assert parse_value('(1,2),(3,4)') == [(1, 2), (3, 4)]


def test_spaces_in_a_string_stay():
    assert parse_value('What is it?') == 'What is it?'
    assert parse_value('[a b, c]') == ['a b', 'c']


@pytest.mark.parametrize('text', ['[1,2', '1,2]', '[(1,2])', ')('])
def test_brackets_that_do_not_match_are_refused(text):
    with pytest.raises(ValueError, match='brackets do not match'):
        parse_value(text)
