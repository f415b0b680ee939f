"""TextVQA: questions about text in images (Singh et al., 2019)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmtransmamba.registry import METRICS

from .files import Row, find_file, read_json, read_rows
from .metric import AnswerMetric, percentage
from .prompts import ask_short
from .sample import VLMSample
from .vqa_answers import normalise_answer, soft_accuracy, split_words


def load_textvqa(folder: str | Path) -> list[VLMSample]:
    """The validation set of TextVQA.

    Args:
        folder: Contains the official ``TextVQA_0.5.1_val.json``, or its entries line by
            line in ``ground_truth.jsonl``. With LLaVA's prompts beside it
            (``llava_textvqa_val_v051_ocr.jsonl`` or ``questions.jsonl``, same order),
            ids and prompts, which contain OCR tokens, are LLaVA's.

    Returns:
        Samples whose gold is the list of ten answers.

    Raises:
        ValueError: Prompts and answers belong to different questions.
    """
    path = find_file(folder, 'TextVQA_0.5.1_val.json', 'ground_truth.jsonl')
    if 'jsonl' in path.name:
        rows = read_rows(path)
    else:
        data = Row(read_json(path), str(path))['data']
        rows = [Row(entry, f'{path}, entry {n}') for n, entry in enumerate(data, 1)]
    asked = find_file(
        folder, 'llava_textvqa_val_v051_ocr.jsonl', 'questions.jsonl', optional=True
    )
    prompts = _aligned(rows, read_rows(asked)) if asked is not None else None
    return [
        VLMSample(
            str(row['question_id'] if prompts is None else row['image_id']),
            ask_short(row['question']) if prompts is None else prompts[number],
            row['answers'],
            (f'{row["image_id"]}.jpg',),
        )
        for number, row in enumerate(rows)
    ]


def _aligned(rows: list[Row], asked: list[Row]) -> list[str]:
    """LLaVA's prompt for each question."""
    if len(asked) != len(rows):
        raise ValueError(
            f'There are {len(asked)} prompts for {len(rows)} questions of TextVQA.'
        )
    for row, prompt in zip(rows, asked, strict=True):
        question = prompt['text'].split('\n')[0].strip().lower()
        if (prompt['question_id'], question) != (
            row['image_id'],
            row['question'].strip().lower(),
        ):
            raise ValueError(f'{prompt.where} is not the question of {row.where}.')
    return [prompt['text'] for prompt in asked]


@METRICS.register_module()
class TextVQAMetric(AnswerMetric):
    """Mean soft accuracy of answers in normal form."""

    default_prefix = 'textvqa'

    def judge(self, sample: VLMSample, text: str) -> dict[str, Any]:
        people = [normalise_answer(split_words(answer)) for answer in sample.gold]
        return dict(score=soft_accuracy(normalise_answer(split_words(text)), people))

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        return dict(accuracy=percentage(r['score'] for r in results))
