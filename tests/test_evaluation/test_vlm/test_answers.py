"""Which option an answer chooses."""

import pytest

from mmtransmamba.evaluation.vlm.answers import choose_option, leading_letter
from mmtransmamba.evaluation.vlm.prompts import ask_options

ANIMALS = ('cat', 'dog', 'dark red dog', 'bird')


@pytest.mark.parametrize(
    ('text', 'letter'),
    [
        ('B', 'B'),
        (' B\n', 'B'),
        ('B. a dog', 'B'),
        ('(B) a dog', 'B'),
        ('B: dog', 'B'),
        ('Bird', None),
        ("B's", None),
        ('b', None),
        ('the answer is B', None),
        ('', None),
    ],
)
def test_leading_letter(text, letter):
    assert leading_letter(text) == letter


def test_a_letter_of_no_option():
    assert leading_letter('E', 'ABCD') is None


@pytest.mark.parametrize(
    ('text', 'letter'),
    [
        ('B', 'B'),
        ('A', 'A'),
        ('A.', 'A'),
        ('(A) a cat', 'A'),
        ('A\nbecause it purrs', 'A'),
        # The article is not a letter.
        ('A bird is in the picture.', 'D'),
        ('I see a bird', 'D'),
        ('The answer is B.', 'B'),
        ('The answer is (A), not a bird', 'A'),
        ('The answer is A', 'A'),
        # Several letters, several options, none.
        ('B or C', None),
        ('(A) or (B)', None),
        ('B/C', None),
        ('B, because C is wrong', 'B'),
        ('B. Plan C', 'B'),
        ('B. C', 'B'),
        ('B, or C', None),
        ('A, B and C are wrong', None),
        ('a cat and a bird', None),
        ('a horse', None),
        ('', None),
        ('E', None),
        # The text of an option; of two, of which one contains the other, the longer.
        ('It is a cat.', 'A'),
        ('CAT', 'A'),
        ('It is a dark red dog.', 'C'),
        ('It is a dog.', 'B'),
        ('concatenation', None),
    ],
)
def test_choose_option(text, letter):
    assert choose_option(text, ANIMALS) == letter


def test_numbers_are_not_found_within_numbers():
    options = ('5', '15', '1.5', '5.2')
    assert [choose_option(f'It is {o}.', options) for o in options] == list('ABCD')


def test_a_letter_counts_before_the_text_of_another_option():
    assert choose_option('A', ('B', 'A')) == 'A'
    assert choose_option('sample A.', ('neither', 'sample A', 'sample B')) == 'B'


def test_prompt():
    assert ask_options('Which?', ('cat', 'dog'), 'A hint.') == (
        'A hint.\nWhich?\nA. cat\nB. dog\n'
        "Answer with the option's letter from the given choices directly."
    )
