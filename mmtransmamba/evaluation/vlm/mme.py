"""MME: two yes/no questions for each image, in 14 categories (Fu et al., 2023)."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

from mmtransmamba.registry import METRICS

from .files import Row, find_file, read_rows, read_text
from .metric import AnswerMetric, percentage
from .sample import VLMSample
from .yes_no import read_yes_no

PERCEPTION = (
    'existence',
    'count',
    'position',
    'color',
    'posters',
    'celebrity',
    'scene',
    'landmark',
    'artwork',
    'OCR',
)
COGNITION = (
    'commonsense_reasoning',
    'numerical_calculation',
    'text_translation',
    'code_reasoning',
)


def load_mme(folder: str | Path) -> list[VLMSample]:
    """All questions of MME.

    Args:
        folder: Contains one ``CATEGORY.txt`` for each category, or a folder
            ``questions_gt`` or ``Your_Results`` (of the official evaluation tool) with
            these files: image, question and Yes or No, separated by tabs. With LLaVA's
            prompts beside them (``llava_mme.jsonl`` or ``questions.jsonl``), ids,
            prompts and order are LLaVA's.

    Returns:
        Samples with the gold ``'yes'`` or ``'no'``; two share their ``question_id``.

    Raises:
        ValueError: A file has another format, or a prompt does not match any question.
    """
    folder = Path(folder)
    tables = [folder / 'questions_gt', folder / 'Your_Results', folder]
    texts = next((t for t in tables if any(t.glob('*.txt'))), None)
    if texts is None:
        raise FileNotFoundError(f'{folder} has no CATEGORY.txt of MME.')
    samples = []
    for category in PERCEPTION + COGNITION:
        path = find_file(texts, f'{category}.txt')
        lines = [line for line in read_text(path).split('\n') if line.strip()]
        for number, line in enumerate(lines, 1):
            parts = line.split('\t')
            if len(parts) < 3 or parts[2].strip().lower() not in ('yes', 'no'):
                raise ValueError(
                    f'{path}, line {number}: expected image, question and Yes or No '
                    f'between tabs, got {line!r}'
                )
            samples.append(
                VLMSample(
                    f'{category}/{parts[0]}',
                    parts[1],
                    parts[2].strip().lower(),
                    (f'{category}/{parts[0]}',),
                    category=category,
                )
            )
    prompts = find_file(folder, 'llava_mme.jsonl', 'questions.jsonl', optional=True)
    return samples if prompts is None else _asked(samples, read_rows(prompts))


def _question(category: str, image: str, text: str) -> tuple[str, str, str]:
    """The common part of two versions of a question."""
    text = re.sub(r'\s*Please answer yes or no\.\s*$', '', text.split('\n')[0])
    # Image extensions differ between releases, and LLaVA's ids have subfolders.
    return category, Path(image).stem, ' '.join(text.split())


def _asked(samples: list[VLMSample], prompts: list[Row]) -> list[VLMSample]:
    """The samples with LLaVA's ids and prompts, in LLaVA's order."""
    gold = {_question(s.category, s.images[0], s.prompt): s.gold for s in samples}
    found = []
    for row in prompts:
        key = _question(row['category'], row['image'], row['text'])
        if key not in gold:
            raise ValueError(f'{row.where} is not a question of MME: {key}')
        found.append(
            VLMSample(
                row['question_id'],
                row['text'],
                gold[key],
                (row['image'],),
                category=row['category'],
            )
        )
    return found


def yes_or_no(text: str) -> str:
    """``'yes'``, ``'no'``, or ``'other'``: by the first four characters."""
    text = text.strip().lower()
    return next((word for word in ('yes', 'no') if word in text[:4]), 'other')


@METRICS.register_module()
class MMEMetric(AnswerMetric):
    """Points, not percent: 100 acc + 100 acc+ for each category, at most 200.

    ``acc`` is the share of right answers, ``acc+`` that of images with both answers
    right. ``mme/perception`` is the sum over ten categories, at most 2000, and
    ``mme/cognition`` that over four, at most 800. ``mme/unread``, in percent, is the
    share of answers that the rule reads as neither yes nor no, or differently from what
    they state.

    Raises:
        ValueError: An image does not have two questions, or a category is missing.
    """

    default_prefix = 'mme'

    def judge(self, sample: VLMSample, text: str) -> dict[str, Any]:
        answer = yes_or_no(text)
        return dict(
            category=sample.category,
            image=Path(sample.images[0]).stem,
            right=answer == sample.gold,
            unread=read_yes_no(text) != answer,
        )

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        points = {}
        for category in PERCEPTION + COGNITION:
            answers = [r for r in results if r['category'] == category]
            points[category] = self._points(category, answers)
        return dict(
            perception=sum(points[name] for name in PERCEPTION),
            cognition=sum(points[name] for name in COGNITION),
            unread=percentage(r['unread'] for r in results),
            **points,
        )

    def _points(self, category: str, answers: list[dict]) -> float:
        asked = Counter(a['image'] for a in answers)
        odd = [image for image, times in asked.items() if times != 2]
        if odd or not answers:
            raise ValueError(
                f'MMEMetric: the score needs both questions of every image; category '
                f'"{category}" has {len(answers)} answers, and not two of {odd[:5]}.'
            )
        right = Counter(a['image'] for a in answers if a['right'])
        return percentage(a['right'] for a in answers) + percentage(
            right[image] == 2 for image in asked
        )
