"""Figures of the format, from responses with known faults."""

import pytest
from mmengine.evaluator import Evaluator

from mmtransmamba.evaluation import ReasoningFormat
from mmtransmamba.utils.reasoning_text import join_sections

WHOLE = join_sections('one two', 'three', 'four five six', 'B')


def evaluate(*texts):
    return Evaluator([dict(type='mmtransmamba.ReasoningFormat')]).offline_evaluate(
        [dict(text=text) for text in texts]
    )


def test_figures_of_four_responses():
    cut = WHOLE[: WHOLE.index(' six')]
    found = evaluate(WHOLE, cut, 'Two cats.', f'{WHOLE}</CONCLUSION> so')
    assert found == {
        'reasoning/well_formed': 25,
        'reasoning/summary': 75,
        'reasoning/caption': 75,
        'reasoning/reasoning': 50,
        'reasoning/conclusion': 50,
        'reasoning/order': 50,
        'reasoning/duplicates': 0,
        'reasoning/outside': 50,
        'reasoning/stray': 25,
        'reasoning/truncated': 25,
        'reasoning/no_answer': 50,
        'reasoning/unclosed_answer': 0,
        'reasoning/words_summary': 2,
        'reasoning/words_caption': 1,
        'reasoning/words_reasoning': pytest.approx(8 / 3),
        'reasoning/words_conclusion': 1,
    }


def test_sections_that_nobody_wrote_have_no_length():
    found = evaluate('<CONCLUSION> one two', '<CONCLUSION>three</CONCLUSION>')
    assert found['reasoning/unclosed_answer'] == 50
    assert found['reasoning/words_conclusion'] == 1.5
    assert 'reasoning/words_summary' not in found


def test_no_response():
    with pytest.raises(ValueError, match='no response'):
        ReasoningFormat().compute_metrics([])
