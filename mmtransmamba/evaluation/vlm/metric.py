"""Common parts of the metrics of all benchmarks."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mmengine.evaluator import BaseMetric

from .sample import VLMSample


class AnswerMetric(BaseMetric):
    """Base class of metrics over questions and a model's answers.

    A data sample is a dict with ``sample``, a
    :class:`~mmtransmamba.evaluation.vlm.VLMSample`, and ``text``. Figures are in
    percent unless the metric states otherwise.

    ``PREFIX/unread``, if present, is the share of answers that the rule of this
    benchmark could not read. They count as wrong, or as whatever the rule reads. A
    score with many of them reflects the form of the answers rather than the model.

    Args:
        **kwargs: Arguments of mmengine's ``BaseMetric``.
    """

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        for item in data_samples:
            self.results.append(self.judge(item['sample'], item['text']))

    @abstractmethod
    def judge(self, sample: VLMSample, text: str) -> dict[str, Any]:
        """The data about one answer that :meth:`compute_metrics` needs."""


def percentage(values: Iterable[float]) -> float:
    """Mean in percent.

    Raises:
        ValueError: There are no values.
    """
    values = list(values)
    if not values:
        raise ValueError('There is no answer to score.')
    return 100 * sum(values) / len(values)


def by_group(results: Sequence[dict], key: str, value: str) -> dict[str, float]:
    """Mean of ``value`` in percent for each group that ``key`` names."""
    groups: dict[str, list[float]] = {}
    for result in results:
        if result[key]:
            groups.setdefault(result[key], []).append(result[value])
    return {name: percentage(groups[name]) for name in sorted(groups)}


def write_submission(path: str | Path, content: Any) -> None:
    """Write the file that a benchmark's server accepts."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding='utf-8')
