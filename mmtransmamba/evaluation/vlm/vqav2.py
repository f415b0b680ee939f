"""VQAv2: open questions about COCO images, ten answers each (Goyal et al., 2017)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmtransmamba.registry import METRICS

from .files import Row, find_file, read_json
from .metric import AnswerMetric, by_group, percentage, write_submission
from .prompts import ask_short
from .sample import VLMSample
from .vqa_answers import normalise_answer, soft_accuracy


def load_vqav2(folder: str | Path, split: str = 'val2014') -> list[VLMSample]:
    """A split of VQAv2.

    Args:
        folder: Contains the official ``v2_OpenEnded_mscoco_SPLIT_questions.json`` and,
            if the answers are public, ``v2_mscoco_SPLIT_annotations.json``.
        split: ``'val2014'``, ``'test-dev2015'`` or ``'test2015'``.

    Returns:
        Samples whose gold is the list of ten answers, or None; ``category`` is the
        type of the answer.
    """
    path = find_file(folder, f'v2_OpenEnded_mscoco_{split}_questions.json')
    questions = Row(read_json(path), str(path))['questions']
    gold = find_file(folder, f'v2_mscoco_{split}_annotations.json', optional=True)
    if gold is None and split == 'val2014':
        raise FileNotFoundError(
            f'{folder} has no v2_mscoco_{split}_annotations.json (also with .gz).'
        )
    annotations = (
        []
        if gold is None
        else [
            Row(entry, str(gold))
            for entry in Row(read_json(gold), str(gold))['annotations']
        ]
    )
    answers = Row({entry['question_id']: entry for entry in annotations}, str(gold))
    # The images of test-dev are a subset of the test images.
    images = split.replace('-dev', '')
    return [
        VLMSample(
            str(question['question_id']),
            ask_short(question['question']),
            [a['answer'] for a in answers[question['question_id']]['answers']]
            if gold
            else None,
            (f'COCO_{images}_{int(question["image_id"]):012}.jpg',),
            category=answers[question['question_id']]['answer_type'] if gold else '',
        )
        for question in (Row(q, str(path)) for q in questions)
    ]


@METRICS.register_module()
class VQAv2Metric(AnswerMetric):
    """Mean soft accuracy, also for each type of answer; or a file for the server.

    Answers are always converted to normal form. (The official script skips this if all
    ten annotators agree, and expects lower-case answers.)

    Args:
        submission: File for the evaluation server, written if the gold answers are not
            public. The only figure then is ``vqav2/answers``, their number.
        **kwargs: Arguments of mmengine's ``BaseMetric``.
    """

    default_prefix = 'vqav2'

    def __init__(self, submission: str | Path | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.submission = submission

    def judge(self, sample: VLMSample, text: str) -> dict[str, Any]:
        answer = normalise_answer(text)
        if sample.gold is None:
            return dict(question_id=int(sample.question_id), answer=answer)
        people = [normalise_answer(person) for person in sample.gold]
        return dict(kind=sample.category, score=soft_accuracy(answer, people))

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        if not results or 'score' in results[0]:
            return dict(
                accuracy=percentage(r['score'] for r in results),
                **by_group(results, 'kind', 'score'),
            )
        if self.submission is None:
            raise ValueError(
                'VQAv2Metric: the answers of this split are secret; give submission='
                'FILE for the evaluation server.'
            )
        write_submission(self.submission, results)
        return dict(answers=len(results))
