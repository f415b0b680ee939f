import pytest

from mmtransmamba.evaluation.vlm import MathVistaMetric, load_mathvista, score
from mmtransmamba.evaluation.vlm.mathvista import extract

CHOICES = ('6cm', '7cm', '45°', '5√{2}cm')


@pytest.mark.parametrize(
    ('text', 'kind', 'precision', 'answer'),
    [
        # Integers are cut, not rounded, as in the official scorer.
        ('4', 'integer', 0, '4'),
        ('4.9', 'integer', 0, '4'),
        ('-3', 'integer', 0, '-3'),
        ('−3', 'integer', 0, '-3'),
        ('1,000 g', 'integer', 0, '1000'),
        ('$400', 'integer', 0, '400'),
        ('about 35%', 'integer', 0, '35'),
        # After the announcement the first number, without one the last.
        ('The answer is 5 of 12 apples.', 'integer', 0, '5'),
        ('Answer: **7**', 'integer', 0, '7'),
        ('To answer this, add 3 and 4, which gives 7.', 'integer', 0, '7'),
        ('The answer is 3? No, the answer is 4.', 'integer', 0, '4'),
        ('It is 2-3', 'integer', 0, '3'),
        ('The answer is clear: see 8', 'integer', 0, '8'),
        # Floats are rounded to the precision that the prompt asks for.
        ('1.24', 'float', 1, '1.2'),
        ('1.26 m', 'float', 1, '1.3'),
        ('2', 'float', 1, '2.0'),
        ('.5', 'float', 2, '0.5'),
        ('1.5e2', 'float', 1, '150.0'),
        ('3/4', 'float', 2, '0.75'),
        ('1/0', 'float', 2, None),
        # A number that is part of a word is none.
        ('x5', 'integer', 0, None),
        ('two', 'integer', 0, None),
        ('', 'integer', 0, None),
        ('[2014,2016]', 'list', 0, '[2014, 2016]'),
        ('From [1] to [0, 2]', 'list', 0, '[0, 2]'),
        ('2014 and 2016', 'list', 0, None),
        ('[a, b', 'list', 0, None),
        ('[a, b]', 'list', 0, None),
    ],
)
def test_values(text, kind, precision, answer):
    assert extract(text, kind, precision, ()) == answer


@pytest.mark.parametrize(
    ('text', 'answer'),
    [
        ('B', '7cm'),
        ('(B)', '7cm'),
        ('7cm', '7cm'),
        ('The answer is (A) 6cm', '6cm'),
        ('(A) and (B) are too long. The correct answer is 45°.', '45°'),
        ('It must be 5√{2}cm long', '5√{2}cm'),
        ('(A) or (B)', None),
        # The official scorer would take the most similar choice: strict matching not.
        ('8cm', None),
        ('7', None),
        ('', None),
    ],
)
def test_choices(text, answer):
    assert extract(text, 'choice', 0, CHOICES) == answer


def test_choices_that_are_letters():
    assert extract('A', 'choice', 0, ('C', 'B', 'A')) == 'A'


@pytest.fixture
def samples(tmp_path, write):
    def problem(**values):
        common = dict(
            question='How long?',
            image='images/1.jpg',
            choices=None,
            unit=None,
            precision=None,
            question_type='free_form',
            metadata={'task': 'geometry'},
        )
        return common | values

    problems = {
        '1': problem(answer='1.2', answer_type='float', precision=1.0, unit='m'),
        '2': problem(
            answer='b',
            answer_type='text',
            question_type='multi_choice',
            choices=['a', 'b'],
            metadata={'task': 'figures'},
        ),
        '3': problem(answer='4', answer_type='integer'),
        '4': problem(answer='[1, 2]', answer_type='list'),
    }
    write(tmp_path / 'testmini.json', problems)
    return load_mathvista(tmp_path)


def test_official_prompts(samples):
    floating, choice, integer, listed = (s.prompt for s in samples)
    assert floating == (
        'Hint: Please answer the question requiring a floating-point number with one '
        'decimal place and provide the final value, e.g., 1.2, 1.3, 1.4, at the end.\n'
        'Question: How long? (Unit: m)'
    )
    assert choice == (
        'Hint: Please answer the question and provide the correct option letter, e.g., '
        'A, B, C, D, at the end.\nQuestion: How long?\nChoices:\n(A) a\n(B) b'
    )
    assert 'requiring an integer answer' in integer
    assert 'requiring a Python list' in listed


def test_figures(samples):
    found = score(MathVistaMetric(), samples, ['1.19', 'B', 'four', '[2, 1]'])
    assert found == pytest.approx(
        {
            'mathvista/accuracy': 50,
            'mathvista/extracted': 75,
            'mathvista/unread': 25,
            'mathvista/figures': 100,
            'mathvista/geometry': 100 / 3,
        }
    )
