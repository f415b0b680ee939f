"""POPE: is an object in the image? (Li et al., 2023)"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmtransmamba.registry import METRICS

from .files import Row, find_file, read_rows
from .metric import AnswerMetric, percentage
from .prompts import ask_short
from .sample import VLMSample
from .yes_no import read_yes_no

SPLITS = ('random', 'popular', 'adversarial')


def load_pope(folder: str | Path) -> list[VLMSample]:
    """The three splits of POPE on COCO.

    Args:
        folder: Contains ``coco_pope_random.json``, ``coco_pope_popular.json`` and
            ``coco_pope_adversarial.json``. With LLaVA's prompts beside them
            (``llava_pope_test.jsonl`` or ``questions.jsonl``), ids and prompts are
            LLaVA's, and the k-th prompt of a category is line k of its split.

    Returns:
        Samples with the gold ``'yes'`` or ``'no'``; ``category`` is the split.

    Raises:
        ValueError: The prompts do not belong to the splits.
    """
    prompts = find_file(
        folder, 'llava_pope_test.jsonl', 'questions.jsonl', optional=True
    )
    if prompts is not None:
        return _aligned(Path(folder), read_rows(prompts))
    return [
        VLMSample(
            f'{split}/{row["question_id"]}',
            ask_short(row['text']),
            row['label'],
            (row['image'],),
            category=split,
        )
        for split in SPLITS
        for row in read_rows(find_file(folder, f'coco_pope_{split}.json'))
    ]


def _aligned(folder: Path, prompts: list[Row]) -> list[VLMSample]:
    samples = []
    for split in SPLITS:
        asked = [row for row in prompts if row['category'] == split]
        labels = _labels(folder, split, asked)
        samples += [
            VLMSample(
                str(row['question_id']),
                row['text'],
                label['label'],
                (row['image'],),
                category=split,
            )
            for row, label in zip(asked, labels, strict=True)
        ]
    return samples


def _labels(folder: Path, split: str, asked: list[Row]) -> list[Row]:
    """The lines of a split; the first release had 2910 random ones."""
    images = [row['image'] for row in asked]
    files = sorted(folder.glob(f'coco_pope_{split}*.json*'))
    for file in files:
        rows = read_rows(file)
        if [row['image'] for row in rows] == images:
            return rows
    raise ValueError(
        f'{folder}: the {len(asked)} prompts of the category "{split}" belong to none '
        f'of {[file.name for file in files]}: other images or another number.'
    )


def says_yes(text: str) -> bool:
    """Whether an answer counts as yes: its first sentence has no "No", "no", "not"."""
    words = text.split('.')[0].replace(',', '').split(' ')
    return not {'No', 'no', 'not'} & set(words)


@METRICS.register_module()
class POPEMetric(AnswerMetric):
    """Accuracy, precision, recall, F1 and the share of yes for each split.

    "Yes" is the positive class. ``pope/f1`` and ``pope/accuracy`` are the means over
    the splits, as LLaVA reports them. ``pope/unread`` is the share of answers, in
    percent, that do not state what the rule reads, such as ``NO``, which the rule reads
    as a yes.
    """

    default_prefix = 'pope'

    def judge(self, sample: VLMSample, text: str) -> dict[str, Any]:
        yes = says_yes(text)
        return dict(
            split=sample.category,
            yes=yes,
            gold=sample.gold,
            # Read as a yes because it has no "No", or as a no although it states yes.
            unread=read_yes_no(text) != ('yes' if yes else 'no'),
        )

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        splits = {}
        for name in SPLITS:
            answers = [r for r in results if r['split'] == name]
            if answers:
                splits[name] = _scores(answers)
        means = {
            key: sum(scores[key] for scores in splits.values()) / len(splits)
            for key in ('f1', 'accuracy')
        }
        parts = {
            f'{name}/{key}': value
            for name, scores in splits.items()
            for key, value in scores.items()
        }
        return means | parts | dict(unread=percentage(r['unread'] for r in results))


def _scores(answers: list[dict]) -> dict[str, float]:
    right = [a for a in answers if a['yes'] == (a['gold'] == 'yes')]
    hits = sum(a['yes'] for a in right)
    said = sum(a['yes'] for a in answers)
    true = sum(a['gold'] == 'yes' for a in answers)
    return dict(
        accuracy=100 * len(right) / len(answers),
        precision=100 * hits / max(1, said),
        recall=100 * hits / max(1, true),
        f1=200 * hits / max(1, said + true),
        yes_ratio=100 * said / len(answers),
    )
