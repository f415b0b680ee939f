"""Accuracy of short answers."""

import pytest

from mmtransmamba.evaluation import AnswerAccuracy
from mmtransmamba.registry import METRICS


def score(rows, **options):
    metric = AnswerAccuracy(**options)
    samples = [
        dict(prediction=said, answer=right, category=category)
        for said, right, category in rows
    ]
    metric.process(None, samples)
    return metric.evaluate(len(samples))


def test_total_and_categories():
    rows = [
        ('Red.', 'red', 'colour'),
        ('top  left', 'Top left', 'place'),
        ('left', 'top left', 'place'),
        ('', 'yes', 'exists'),
    ]
    assert score(rows) == {
        'answers/accuracy': 50.0,
        'answers/malformed': 25.0,
        'answers/colour': 100.0,
        'answers/exists': 0.0,
        'answers/place': 50.0,
    }


def test_answers_that_there_are():
    rows = [('yes', 'no', ''), ('yes no', 'yes', ''), ('NO!', 'no', '')]
    found = score(rows, allowed=['yes', 'no'])
    assert found == {
        'answers/accuracy': pytest.approx(100 / 3),
        'answers/malformed': pytest.approx(100 / 3),
    }


@pytest.mark.parametrize(
    'said, right, options',
    [('', '?', {}), ('maybe', 'Maybe', dict(allowed=['yes', 'no'])), (' ', '', {})],
)
def test_what_is_malformed_is_wrong(said, right, options):
    found = score([(said, right, '')], **options)
    assert found == {'answers/accuracy': 0.0, 'answers/malformed': 100.0}


def test_no_answers():
    with pytest.raises(ValueError, match='no answer to score'):
        AnswerAccuracy().compute_metrics([])


def test_samples_without_category():
    metric = METRICS.build(dict(type='mmtransmamba.AnswerAccuracy'))
    metric.process(None, [dict(prediction='a', answer='a')])
    assert metric.evaluate(1) == {'answers/accuracy': 100.0, 'answers/malformed': 0.0}


def test_category_with_the_name_of_a_value():
    with pytest.raises(ValueError, match="'accuracy' cannot be the name"):
        score([('a', 'a', 'accuracy')])
