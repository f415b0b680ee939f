"""MMBench: multiple choice with every order of the options (Liu et al., 2023)."""

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
from .spreadsheet import SUFFIXES, write_table

# The indices of one question's rotations differ by a multiple of this.
ROTATION = 1_000_000
_GROUPS = ('category', 'l2-category')
# A shorter text in the image column is the index of the row that has the image.
_MIN_IMAGE = 64


def load_mmbench(folder: str | Path) -> list[VLMSample]:
    """A split of MMBench.

    Args:
        folder: Contains a ``*.tsv`` of MMBench (``index``, ``question``, ``hint``,
            ``A`` to ``D``, ``answer``, ``category``, ``image`` in base64), or a
            ``*.jsonl`` with ``index``, ``question``, ``options`` and ``answer``; or is
            such a file. The test splits have no ``answer``.

    Returns:
        Samples with the gold letter; or with None, and the cells of the row in
        ``info``.

    Raises:
        ValueError: A row lacks a column, or only some have an answer.
    """
    rows = read_rows(find_file(folder, '*.tsv', '*.jsonl'))
    images = {
        str(row['index']): base64.b64decode(row['image'])
        for row in rows
        if len(row.get('image') or '') > _MIN_IMAGE
    }
    samples = [_sample(row, images) for row in rows]
    without = [row for row, s in zip(rows, samples, strict=True) if s.gold is None]
    if 0 < len(without) < len(rows):
        raise ValueError(
            f'{without[0].where} has no "answer", but others have: {len(without)} of '
            f'{len(rows)} rows have none. In a test split no row has one.'
        )
    return samples


def _sample(row: Row, images: dict[str, bytes]) -> VLMSample:
    index = int(row['index'])
    options = options_of(row)
    hint = _given(row, 'hint')
    gold = _given(row, 'answer') or None
    if row.get('prompt'):
        prompt = f'{row["prompt"]}\n{OPTION_LETTER}'
    else:
        prompt = ask_options(row['question'], options, hint)
    sources = [str(index), str(row.get('image')), str(index % ROTATION)]
    image = next((images[key] for key in sources if key in images), None)
    return VLMSample(
        str(index),
        prompt,
        gold,
        () if image is None else (image,),
        options,
        row.get('category') or '',
        {} if gold else _cells(row, options),
    )


def _cells(row: Row, options: tuple[str, ...]) -> dict[str, str]:
    """The cells of a row that a file for the server repeats."""
    cells = dict(question=row['question'], **dict(zip(LETTERS, options, strict=False)))
    return cells | {key: _given(row, key) for key in _GROUPS if _given(row, key)}


def _given(row: Row, key: str) -> str:
    """A cell; empty if the table has none, which pandas writes as "nan"."""
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
    every order of its options; also for each category. ``mmbench/plain``: only the
    first order, with index < 1,000,000. ``mmbench/unread``: share of answers that
    choose no option, over all rows; they are wrong.

    Args:
        submission: File for the evaluation server, ``.xlsx`` or ``.tsv``, written if
            the answers are secret (the test splits): a row for each answer with its
            ``index``, ``question``, options ``A`` to ``D``, ``prediction`` and
            categories. The figures then are ``mmbench/answers``, their number, and
            ``mmbench/unread``.
        **kwargs: Arguments of mmengine's ``BaseMetric``.
    """

    default_prefix = 'mmbench'

    def __init__(self, submission: str | Path | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if submission is not None and Path(submission).suffix not in SUFFIXES:
            raise ValueError(
                f'MMBenchMetric: submission="{submission}" must end with '
                f'{" or ".join(SUFFIXES)}.'
            )
        self.submission = submission

    def judge(self, sample: VLMSample, text: str) -> dict[str, Any]:
        letter = choose_option(text, sample.options)
        return dict(
            index=int(sample.question_id),
            category=sample.category,
            right=letter == sample.gold,
            unread=letter is None,
            row=None
            if sample.gold
            else dict(sample.info, index=int(sample.question_id), prediction=text),
        )

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        unread = percentage(r['unread'] for r in results)
        if results[0]['row'] is not None:
            self._submit([r['row'] for r in results])
            return dict(answers=len(results), unread=unread)
        questions: dict[int, dict] = {}
        for result in results:
            number = result['index'] % ROTATION
            question = questions.setdefault(number, dict(result))
            question['right'] &= result['right']
        circular = list(questions.values())
        return dict(
            circular=percentage(q['right'] for q in circular),
            plain=percentage(r['right'] for r in results if r['index'] < ROTATION),
            unread=unread,
            **by_group(circular, 'category', 'right'),
        )

    def _submit(self, rows: list[dict]) -> None:
        if self.submission is None:
            raise ValueError(
                'MMBenchMetric: the answers of this split are secret (the table has no '
                'column "answer"); give submission=FILE.xlsx for the evaluation server.'
            )
        options = sorted({key for row in rows for key in row if key in LETTERS})
        letters = [*'ABCD', *(key for key in options if key not in 'ABCD')]
        columns = ['index', 'question', *letters, 'prediction']
        columns += [key for key in _GROUPS if any(key in row for row in rows)]
        write_table(self.submission, columns, rows)
