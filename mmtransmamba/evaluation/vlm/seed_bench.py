"""SEED-Bench: multiple choice in nine kinds of tasks on images (Li et al., 2023)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmtransmamba.registry import METRICS

from .answers import leading_letter
from .files import Row, find_file, read_json, read_rows
from .metric import AnswerMetric, by_group, percentage
from .prompts import LETTERS, ask_options
from .sample import VLMSample


def load_seed_bench(folder: str | Path, part: str = 'image') -> list[VLMSample]:
    """One part of SEED-Bench.

    Args:
        folder: Has the official ``SEED-Bench.json``, or a ``questions_gt.jsonl`` with
            ``question_id``, ``answer``, ``data_type``, ``category``, ``question`` and
            ``options`` by letter.
        part: ``'image'`` or ``'video'``.

    Returns:
        Samples with the gold letter; ``category`` is the kind of task.
    """
    path = find_file(folder, 'SEED-Bench.json', 'questions_gt.jsonl')
    rows = _official(path) if 'SEED-Bench.json' in path.name else read_rows(path)
    return [_sample(row) for row in rows if row['data_type'] == part]


def _official(path: Path) -> list[Row]:
    """The rows of the official file, with its kinds of tasks and options by name."""
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
    """Accuracy, by the letter that an answer begins with; also for each category."""

    default_prefix = 'seed'

    def judge(self, sample: VLMSample, text: str) -> dict[str, Any]:
        return dict(category=sample.category, right=leading_letter(text) == sample.gold)

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        return dict(
            accuracy=percentage(r['right'] for r in results),
            **by_group(results, 'category', 'right'),
        )
