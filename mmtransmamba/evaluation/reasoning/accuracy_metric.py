"""A metric for the correctness of the answers in responses."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from mmengine.evaluator import BaseMetric

from mmtransmamba.evaluation.vlm.answers import choose_option
from mmtransmamba.evaluation.vlm.metric import by_group, percentage
from mmtransmamba.evaluation.vlm.prompts import LETTERS
from mmtransmamba.evaluation.vlm.vqa_answers import normalise_answer
from mmtransmamba.registry import METRICS
from mmtransmamba.utils.reasoning_text import extract_answer

_LETTER = re.compile(r'\(?([A-Z])\)?[.:]?')
_NUMBER = re.compile(r'[$€£]?\s*([-+]?(?:\d+(?:\.\d*)?|\.\d+))\s*[%°]?\.?')
# A hyphen between letters joins words; any other hyphen is a minus.
_SIGN = re.compile(r'[+*/^=<>]|(?<![A-Za-z])-|-(?![A-Za-z])')


@METRICS.register_module()
class ReasoningAccuracy(BaseMetric):
    """Share of responses with the right answer in their conclusion, in percent.

    * ``reasoning/accuracy``; a response without an answer is wrong;
    * ``reasoning/accuracy_choice``: over questions with options or with a letter as
      their answer; ``reasoning/accuracy_open``: over the others;
    * ``reasoning/accuracy_answered``: over the responses that have an answer;
    * ``reasoning/accuracy/CATEGORY``: if samples have categories.

    A data sample is a dict with ``text``, the whole response, and ``answer``, the right
    answer or a response that contains it, as in the files of LLaVA-CoT. Optional keys
    are ``options``, their texts in order, and ``category``.

    Args:
        untagged: See :func:`~mmtransmamba.evaluation.reasoning.extract_answer`.
        **kwargs: Arguments of mmengine's ``BaseMetric``.
    """

    default_prefix = 'reasoning'

    def __init__(self, untagged: str = 'empty', **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.untagged = untagged

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            answer = extract_answer(sample['text'], self.untagged)
            gold = extract_answer(sample['answer'], untagged='text').text
            options = tuple(sample.get('options') or ())
            choice = bool(options or _LETTER.fullmatch(gold))
            self.results.append(
                dict(
                    right=judge_answer(answer.text, gold, options),
                    kind='choice' if choice else 'open',
                    answered='answered' if answer.text else '',
                    category=sample.get('category', ''),
                )
            )

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """Shares of right answers.

        Raises:
            ValueError: There are no responses.
        """
        figures = dict(accuracy=percentage(r['right'] for r in results))
        for key in ('kind', 'answered'):
            for name, share in by_group(results, key, 'right').items():
                figures[f'accuracy_{name}'] = share
        for name, share in by_group(results, 'category', 'right').items():
            figures[f'accuracy/{name}'] = share
        return figures


def judge_answer(answer: str, gold: str, options: Sequence[str] = ()) -> bool:
    """Whether an answer is the right one.

    With options, an answer is right if it chooses the right one, by the rule that
    MMBench, AI2D and MathVista share here
    (:func:`~mmtransmamba.evaluation.vlm.answers.choose_option`). The same rule reads
    the letter if only ``gold`` shows that a letter is asked for. Numbers are compared
    as numbers. Other answers must be equal in the normal form of VQA, and in their
    mathematical signs, which that form drops.

    Args:
        answer: The extracted answer; an empty one is wrong.
        gold: The right answer; with options its letter or its text.
        options: Texts of the options A, B, …

    Raises:
        ValueError: ``gold`` is not one of the options.
    """
    answer, gold = answer.strip(), gold.strip()
    if options:
        right = _letter_of(gold, options)
        return bool(answer) and choose_option(answer, options) == right
    if not answer:
        return False
    if letter := _LETTER.fullmatch(gold):
        # The texts of the options are unknown, so no answer can contain them.
        unknown = [f'\0{name}' for name in LETTERS]
        return choose_option(answer, unknown) == letter[1]
    number = _number_of(gold)
    if number is not None:
        given = _number_of(answer)
        if given is None:
            given = _number_of(normalise_answer(answer))
        return given is not None and math.isclose(given, number, rel_tol=1e-9)
    if _SIGN.findall(answer) != _SIGN.findall(gold):
        return False
    # An answer such as "the" may be empty after normalisation.
    return (normalise_answer(answer) or answer.lower()) == (
        normalise_answer(gold) or gold.lower()
    )


def _letter_of(gold: str, options: Sequence[str]) -> str:
    """The letter of the right option, given by letter or text."""
    letters = LETTERS[: len(options)]
    named = _LETTER.fullmatch(gold)
    if named and named[1] in letters:
        return named[1]
    for letter, option in zip(letters, options, strict=True):
        if gold.rstrip('.').lower() == option.strip().rstrip('.').lower():
            return letter
    raise ValueError(
        f'The answer {gold!r} is neither one of the options {list(options)} nor its '
        'letter.'
    )


def _number_of(text: str) -> float | None:
    """The number that a text represents, or None."""
    found = _NUMBER.fullmatch(re.sub(r'(?<=\d),(?=\d{3}(?!\d))', '', text.strip()))
    return float(found[1]) if found else None
