"""Which extracted answers are right, and the figures made of them."""

import pytest
from mmengine.evaluator import Evaluator

from mmtransmamba.evaluation.reasoning import judge_answer
from mmtransmamba.utils.reasoning_text import join_sections

COLOURS = ('red', 'dark red', 'blue')


@pytest.mark.parametrize(
    'answer, gold, options, right',
    [
        ('B', 'B', COLOURS, True),
        ('(B) dark red', 'B', COLOURS, True),
        ('dark red', 'B', COLOURS, True),
        ('The circle is dark red.', 'dark red', COLOURS, True),
        ('red', 'B', COLOURS, False),
        ('B or C', 'B', COLOURS, False),
        ('', 'A', COLOURS, False),
        # A letter is the letter, even if an option has that text.
        ('A', 'A', ('B', 'A'), True),
        # Options that only the question's text has.
        ('B', 'B', (), True),
        ('B. dark red', '(B)', (), True),
        ('The answer is B.', 'B', (), True),
        ('A dog', 'A', (), False),
        ('C', 'B', (), False),
        ('.', 'B', (), False),
        # Numbers.
        ('5', '5', (), True),
        ('five', '5', (), True),
        ('5.0', '5', (), True),
        ('5.', '5', (), True),
        ('1,250', '1250', (), True),
        ('12%', '12', (), True),
        ('$3.50', '3.5', (), True),
        ('-5', '5', (), False),
        ('5', '-5', (), False),
        ('five', '-5', (), False),
        ('50', '5', (), False),
        ('5 or 6', '5', (), False),
        # Words.
        ('The Cat.', 'cat', (), True),
        ('a T-shirt', 't shirt', (), True),
        ('cats', 'cat', (), False),
        ('yes', 'No', (), False),
        ('x+1', 'x - 1', (), False),
        ('x + 1', 'x + 1', (), True),
        ('the', 'a', (), False),
        ('', 'the', (), False),
    ],
)
def test_judging(answer, gold, options, right):
    assert judge_answer(answer, gold, options) is right


@pytest.mark.parametrize('gold', ['D', 'green'])
def test_a_right_answer_that_is_no_option(gold):
    with pytest.raises(ValueError, match=gold):
        judge_answer('B', gold, COLOURS)


def respond(answer):
    return join_sections('s', 'c', 'It is not 7.', answer)


def test_figures():
    samples = [
        dict(text=respond('B'), answer='B', category='chart'),
        dict(text=respond('red'), answer='B', options=COLOURS, category='chart'),
        dict(text=respond('7'), answer=respond(' 7'), category='count'),
        dict(text=respond('6'), answer='7'),
        dict(text='<REASONING>It is 7', answer='7'),
        dict(text='7', answer='7'),
    ]
    metric = dict(type='mmtransmamba.ReasoningAccuracy')
    assert Evaluator([metric]).offline_evaluate(samples) == {
        'reasoning/accuracy': pytest.approx(100 / 3),
        'reasoning/accuracy_choice': 50,
        'reasoning/accuracy_open': 25,
        'reasoning/accuracy_answered': 50,
        'reasoning/accuracy/chart': 50,
        'reasoning/accuracy/count': 100,
    }
    lenient = dict(metric, untagged='text')
    found = Evaluator([lenient]).offline_evaluate(samples)
    assert found['reasoning/accuracy_open'] == 50
