"""A metric for short answers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.evaluator import BaseMetric

from mmtransmamba.evaluation.vlm.metric import percentage
from mmtransmamba.registry import METRICS

_MARKS = re.compile(r'[^\w\s]')


def normalise(answer: str) -> str:
    """An answer in lower case, without punctuation and superfluous white space."""
    return ' '.join(_MARKS.sub(' ', answer.lower()).split())


@METRICS.register_module()
class AnswerAccuracy(BaseMetric):
    """Share of answers that match the right one word for word, in percent.

    * ``answers/accuracy``: over all questions;
    * ``answers/CATEGORY``: over those of one category, if there are categories;
    * ``answers/malformed``: share of answers that are empty or, if ``allowed`` is
      given, not one of the allowed answers. They also count as wrong.

    Case, punctuation and white space are ignored. The input is the output of a head's
    ``predict`` for each question.

    Args:
        allowed: All possible answers.
        **kwargs: Arguments of mmengine's ``BaseMetric``.
    """

    default_prefix = 'answers'

    def __init__(self, allowed: Sequence[str] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.allowed = None if allowed is None else {normalise(a) for a in allowed}

    def process(self, data_batch: Any, data_samples: Sequence[Mapping]) -> None:
        for sample in data_samples:
            said = normalise(sample['prediction'])
            malformed = not said or (
                self.allowed is not None and said not in self.allowed
            )
            self.results.append(
                dict(
                    right=not malformed and said == normalise(sample['answer']),
                    malformed=malformed,
                    category=sample.get('category', ''),
                )
            )

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """Shares in percent.

        Raises:
            ValueError: A category has the name of another figure, or there are no
                answers.
        """
        groups: dict[str, list[bool]] = {}
        for result in results:
            if result['category']:
                groups.setdefault(result['category'], []).append(result['right'])
        metrics = dict(
            accuracy=percentage(r['right'] for r in results),
            malformed=percentage(r['malformed'] for r in results),
        )
        taken = sorted(set(groups) & set(metrics))
        if taken:
            raise ValueError(
                f'AnswerAccuracy: {taken[0]!r} cannot be the name of a category.'
            )
        return metrics | {name: percentage(groups[name]) for name in sorted(groups)}
