"""AI2D: multiple choice on diagrams of school books (Kembhavi et al., 2016)."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from mmtransmamba.registry import METRICS

from .answers import choose_option
from .files import Row, find_file, read_json, read_rows, read_text
from .metric import AnswerMetric, percentage
from .mmbench import options_of
from .prompts import LETTERS, ask_options
from .sample import VLMSample


def load_ai2d(folder: str | Path, masked: bool = True) -> list[VLMSample]:
    """The test split of AI2D.

    Args:
        folder: Contains the official ``questions/IMAGE.json`` and
            ``ai2d_test_ids.csv``; or VLMEvalKit's ``AI2D_TEST.tsv``
            (``AI2D_TEST_NO_MASK.tsv`` if not masked).
        masked: Whether questions about lettered places get the image in which these
            letters cover the words (``abc_images``), instead of the plain one
            (``images``). Published figures differ in this, so state it with the result.

    Returns:
        Samples with the gold letter.
    """
    folder = Path(folder)
    name = 'AI2D_TEST.tsv' if masked else 'AI2D_TEST_NO_MASK.tsv'
    table = find_file(folder, name, optional=True)
    if table is not None:
        return [_from_table(row) for row in read_rows(table)]
    tested = read_text(find_file(folder, 'ai2d_test_ids.csv')).split()
    return [
        sample
        for image in tested
        for sample in _from_questions(
            find_file(folder / 'questions', f'{image}.json', f'{image}.png.json'),
            masked,
        )
    ]


def _from_table(row: Row) -> VLMSample:
    options = options_of(row)
    return VLMSample(
        row['index'],
        ask_options(row['question'], options),
        row['answer'],
        (base64.b64decode(row['image']),),
        options,
    )


def _from_questions(path: Path, masked: bool) -> list[VLMSample]:
    document = Row(read_json(path), str(path))
    samples = []
    for text, entry in document['questions'].items():
        entry = Row(entry, f'{path}, question "{text}"')
        options = tuple(entry['answerTexts'])
        places = 'abc_images' if masked and entry.get('abcLabel') else 'images'
        samples.append(
            VLMSample(
                entry['questionId'],
                ask_options(text, options),
                LETTERS[entry['correctAnswer']],
                (f'{places}/{document["imageName"]}',),
                options,
            )
        )
    return samples


@METRICS.register_module()
class AI2DMetric(AnswerMetric):
    """Accuracy, without a judge."""

    default_prefix = 'ai2d'

    def judge(self, sample: VLMSample, text: str) -> dict[str, Any]:
        letter = choose_option(text, sample.options)
        return dict(right=letter == sample.gold, unread=letter is None)

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        return dict(
            accuracy=percentage(r['right'] for r in results),
            unread=percentage(r['unread'] for r in results),
        )
