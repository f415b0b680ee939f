"""Multiple choice with letters, in all rotations of the options."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from torch import nn

from mmtransmamba.evaluation.language.answering import answer
from mmtransmamba.evaluation.language.questions import Question, lettered
from mmtransmamba.evaluation.language.scores import (
    METRICS,
    Score,
    likeliest,
    mean_score,
)
from mmtransmamba.evaluation.language.writing import says_letter

LETTER_METRICS = ('letters', 'letters_generated', 'letters_gap', 'letters_all')


def evaluate_letters(
    model: nn.Module,
    tokenizer: Any,
    questions: Sequence[Question],
    batch_tokens: int = 4096,
) -> dict[str, Score]:
    """Score a model on the questions of a benchmark with the options under letters.

    A model that prefers a letter, whatever the question, has the accuracy of guessing
    in ``letters``, 0 in ``letters_all`` and 1 in ``letters_top``.

    Args:
        model, tokenizer, batch_tokens: See :func:`evaluate_task`.
        questions: Questions with options, see
            :func:`~mmtransmamba.evaluation.language.lettered`.

    Returns:
        ``letters``, accuracy over all rotations; ``letters_generated``, that of letters
        which the model writes itself; ``letters_gap``, the difference; ``letters_all``,
        share of questions that are answered correctly in every rotation;
        ``letters_top``, share of the answers that have the most frequent letter.
    """
    sets = [lettered(question) for question in questions]
    flat = [question for own in sets for question in own]
    answers = answer(model, tokenizer, flat, batch_tokens, writes=True)
    chosen = Counter(likeliest(own.likelihoods) for own in answers)
    values: dict[str, list[float]] = {name: [] for name in LETTER_METRICS}
    place = 0
    for own in sets:
        pairs = list(zip(own, answers[place : place + len(own)], strict=True))
        place += len(own)
        # Rotations of a question depend on each other: one value for each question.
        likely = [METRICS['acc'](*pair) for pair in pairs]
        written = [
            says_letter(answers.written or '', question.continuations[question.gold])
            for question, answers in pairs
        ]
        both = statistics.fmean(likely), statistics.fmean(written)
        all_right = float(all(likely))
        row = *both, both[0] - both[1], all_right
        for name, value in zip(LETTER_METRICS, row, strict=True):
            values[name].append(value)
    scores = {name: mean_score(name, every) for name, every in values.items()}
    top = chosen.most_common(1)[0][1] / len(answers)
    scores['letters_top'] = Score(top, math.sqrt(top * (1 - top) / len(answers)))
    return scores
