"""SEED-Bench: multiple choice in nine kinds of tasks on images (Li et al., 2023)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mmtransmamba.registry import METRICS

from .answers import choose_option
from .files import Row, find_file, read_json, read_rows
from .metric import AnswerMetric, by_group, percentage
from .prompts import LETTERS, ask_options
from .sample import VLMSample

# The official file has 14,233 questions on images, but 14,232 ids.
_ASKED_TWICE = '49914'


def load_seed_bench(folder: str | Path, part: str = 'image') -> list[VLMSample]:
    """One part of SEED-Bench.

    Args:
        folder: Contains the official ``SEED-Bench.json``, or a ``questions_gt.jsonl``
            with ``question_id``, ``answer``, ``data_type``, ``category``, ``question``
            and ``options`` by letter.
        part: ``'image'`` or ``'video'``.

    Returns:
        Samples with the gold letter; ``category`` is the kind of task.
    """
    path = find_file(folder, 'SEED-Bench.json', 'questions_gt.jsonl')
    rows = _official(path) if 'SEED-Bench.json' in path.name else read_rows(path)
    return [_sample(row) for row in rows if row['data_type'] == part]


def is_other_question(question_id: str) -> bool:
    """Whether an id belongs to a question on a video, or to two questions."""
    return bool(re.fullmatch(r'v\d+', question_id)) or question_id == _ASKED_TWICE


def _official(path: Path) -> list[Row]:
    """The rows of the official file, with the names of tasks and options."""
    document = Row(read_json(path), str(path))
    names = {number: name for name, number in document['question_type'].items()}
    rows = []
    for question in document['questions']:
        row = Row(question, f'{path}, question {question.get("question_id")}')
        row['category'] = names.get(row['question_type_id'], '')
        row['options'] = {
            letter: row[f'choice_{letter.lower()}'] for letter in LETTERS[:4]
        }
        row['image'] = row['data_id']
        rows.append(row)
    return rows


def _sample(row: Row) -> VLMSample:
    options = tuple(row.get('options', {}).values())
    question = row.get('question', '')
    return VLMSample(
        str(row['question_id']),
        ask_options(question, options),
        row['answer'],
        (row.get('image', str(row['question_id'])),),
        options,
        row.get('category', ''),
    )


@METRICS.register_module()
class SEEDBenchMetric(AnswerMetric):
    """Accuracy, by the option that an answer chooses; also for each category."""

    default_prefix = 'seed'

    def judge(self, sample: VLMSample, text: str) -> dict[str, Any]:
        # A question without options has four.
        letter = choose_option(text, sample.options or [''] * 4)
        return dict(
            category=sample.category, right=letter == sample.gold, unread=letter is None
        )

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        return dict(
            accuracy=percentage(r['right'] for r in results),
            unread=percentage(r['unread'] for r in results),
            **by_group(results, 'category', 'right'),
        )
