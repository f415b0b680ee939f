"""GQA: compositional questions about real images (Hudson and Manning, 2019)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmtransmamba.registry import METRICS

from .files import Row, find_file, read_json, read_rows
from .metric import AnswerMetric, by_group, percentage
from .prompts import ask_short
from .sample import VLMSample


def load_gqa(folder: str | Path) -> list[VLMSample]:
    """The balanced test-dev questions of GQA.

    Args:
        folder: Contains the official ``testdev_balanced_questions.json``; or
            ``ground_truth.jsonl`` (``question_id``, ``answer``, ``structural``,
            ``semantic``) with LLaVA's prompts (``llava_gqa_testdev_balanced.jsonl`` or
            ``questions.jsonl``).

    Returns:
        Samples with the gold answer.
    """
    path = find_file(folder, 'testdev_balanced_questions.json', optional=True)
    if path is not None:
        return [
            _official(number, Row(entry, f'{path}, question {number}'))
            for number, entry in read_json(path).items()
        ]
    asked = find_file(folder, 'llava_gqa_testdev_balanced.jsonl', 'questions.jsonl')
    gold = find_file(folder, 'ground_truth.jsonl')
    answers = Row({row['question_id']: row for row in read_rows(gold)}, str(gold))
    return [_sample(row, answers[row['question_id']]) for row in read_rows(asked)]


def _official(number: str, entry: Row) -> VLMSample:
    types = Row(entry['types'], f'{entry.where}, types')
    return VLMSample(
        number,
        ask_short(entry['question']),
        entry['answer'],
        (f'{entry["imageId"]}.jpg',),
        info=dict(structural=types['structural'], semantic=types['semantic']),
    )


def _sample(row: Row, gold: Row) -> VLMSample:
    return VLMSample(
        row['question_id'],
        row['text'],
        gold['answer'],
        (row['image'],),
        info=dict(structural=gold['structural'], semantic=gold['semantic']),
    )


@METRICS.register_module()
class GQAMetric(AnswerMetric):
    """Accuracy by exact match, ignoring case and a final full stop.

    Also reported for open questions (those of the structure "query"), for the others
    ("binary"), and for each structural and semantic type. ``gqa/unread`` is the share
    of answers that are empty or, for a yes/no question, neither ``yes`` nor ``no``
    alone.
    """

    default_prefix = 'gqa'

    def judge(self, sample: VLMSample, text: str) -> dict[str, Any]:
        structural, semantic = sample.info['structural'], sample.info['semantic']
        answer = text.strip().rstrip('.').lower()
        yes_or_no = ('yes', 'no')
        return dict(
            form='open' if structural == 'query' else 'binary',
            structural=f'structural/{structural}',
            semantic=f'semantic/{semantic}',
            right=answer == sample.gold,
            unread=not answer or (sample.gold in yes_or_no and answer not in yes_or_no),
        )

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        figures = dict(
            accuracy=percentage(r['right'] for r in results),
            unread=percentage(r['unread'] for r in results),
        )
        for key in ('form', 'structural', 'semantic'):
            figures |= by_group(results, key, 'right')
        return figures
