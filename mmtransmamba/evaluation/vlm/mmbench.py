"""MMBench: multiple choice, every order of the options (Liu et al., 2023)."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from mmtransmamba.registry import METRICS

from .answers import choose_option
from .files import Row, find_file, read_rows
from .metric import AnswerMetric, by_group, percentage
from .prompts import LETTERS, OPTION_LETTER, ask_options
from .sample import VLMSample

# Rotations of one question have indices that differ by a multiple of this.
ROTATION = 1_000_000
# A shorter text in the column of images is the index of the row that has the image.
_MIN_IMAGE = 64


def load_mmbench(folder: str | Path) -> list[VLMSample]:
    """The development set of MMBench.

    Args:
        folder: Has a ``*.tsv`` of MMBench (``index``, ``question``, ``hint``, ``A`` to
            ``D``, ``answer``, ``category``, ``image`` in base64), or a ``*.jsonl`` with
            ``index``, ``question``, ``options`` and ``answer``; or is such a file.

    Returns:
        Samples with the gold letter.
    """
    rows = read_rows(find_file(folder, '*.tsv', '*.jsonl'))
    images = {
        str(row['index']): base64.b64decode(row['image'])
        for row in rows
        if len(row.get('image') or '') > _MIN_IMAGE
    }
    return [_sample(row, images) for row in rows]


def _sample(row: Row, images: dict[str, bytes]) -> VLMSample:
    index = int(row['index'])
    options = options_of(row)
    hint = _given(row, 'hint')
    if row.get('prompt'):
        prompt = f'{row["prompt"]}\n{OPTION_LETTER}'
    else:
        prompt = ask_options(row['question'], options, hint)
    sources = [str(index), str(row.get('image')), str(index % ROTATION)]
    image = next((images[key] for key in sources if key in images), None)
    return VLMSample(
        str(index),
        prompt,
        row['answer'],
        () if image is None else (image,),
        options,
        row.get('category') or '',
    )


def _given(row: Row, key: str) -> str:
    """A cell, empty where the table has none; pandas writes "nan"."""
    value = row.get(key) or ''
    return '' if value == 'nan' else value


def options_of(row: Row) -> tuple[str, ...]:
    """The options of a row of a table: ``options`` by letter, or columns A, B, …"""
    columns = row.get('options') or {letter: _given(row, letter) for letter in LETTERS}
    return tuple(columns[a] for a in LETTERS if columns.get(a))


@METRICS.register_module()
class MMBenchMetric(AnswerMetric):
    """Accuracy without a judge, plain and circular.

    ``mmbench/circular``: a question counts as right only if the answer is right in
    every order of its options; also for each category. ``mmbench/plain``: the first
    order alone, of index < 1,000,000.
    """

    default_prefix = 'mmbench'

    def judge(self, sample: VLMSample, text: str) -> dict[str, Any]:
        return dict(
            index=int(sample.question_id),
            category=sample.category,
            right=choose_option(text, sample.options) == sample.gold,
        )

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        questions: dict[int, dict] = {}
        for result in results:
            number = result['index'] % ROTATION
            question = questions.setdefault(number, dict(result))
            question['right'] &= result['right']
        circular = list(questions.values())
        return dict(
            circular=percentage(q['right'] for q in circular),
            plain=percentage(r['right'] for r in results if r['index'] < ROTATION),
            **by_group(circular, 'category', 'right'),
        )
