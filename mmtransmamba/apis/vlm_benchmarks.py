"""Answers of a vision-language model to benchmarks."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmtransmamba.apis.vlm import VisionLanguageChat
from mmtransmamba.evaluation.vlm import (
    Benchmark,
    Known,
    Provider,
    VLMSample,
    find_images,
    from_model,
)
from mmtransmamba.models.multimodal.heads import AnswerHead


def from_chat(
    chat: VisionLanguageChat,
    folder: str | Path,
    image_folders: Callable[[Benchmark], Sequence[str | Path]],
    batch_size: int = 1,
    **generation: Any,
) -> Provider:
    """Answers of a model for :func:`~mmtransmamba.evaluation.vlm.run_benchmark`.

    An answer is limited to the benchmark's length, unless the head generates a longer
    response that contains the answer. Such responses are also stored completely, in
    ``FOLDER/responses/NAME.jsonl``; if an interruption left two rows for a question,
    the last one counts.

    Args:
        chat: The model.
        folder: Folder in which files of predictions are written, and resumed.
        image_folders: Function that returns the image folders of a benchmark.
        batch_size: Questions answered at once.
        **generation: Settings of transformers' ``generate``.
    """

    def answers(
        benchmark: Benchmark, samples: list[VLMSample], known: Known | None = None
    ) -> tuple:
        settings = dict(generation)
        says_more = type(chat.head) is not AnswerHead
        if not says_more:
            settings = dict(max_new_tokens=benchmark.max_new_tokens) | settings

        def answer(batch: list[VLMSample]) -> list[str]:
            images = [sample.images for sample in batch]
            prompts = [sample.prompt for sample in batch]
            if not says_more:
                return chat.answer(prompts, images, **settings)
            texts = chat.generate(prompts, images, **settings)
            path = Path(folder, 'responses', f'{benchmark.name}.jsonl')
            _append_responses(path, batch, texts)
            return [chat.head.answer_of(text) for text in texts]

        found = find_images(samples, image_folders(benchmark))
        texts, note = from_model(answer, folder, batch_size)(benchmark, found, known)
        empty = sum(not text for text in texts)
        # Some rules score an empty answer as a yes, or guess.
        return texts, f'empty answers: {empty}' if empty else note

    return answers


def _append_responses(
    path: Path, samples: Sequence[VLMSample], texts: Sequence[str]
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('a', encoding='utf-8') as file:
        for sample, text in zip(samples, texts, strict=True):
            row = dict(question_id=sample.question_id, prompt=sample.prompt, text=text)
            file.write(json.dumps(row, ensure_ascii=False) + '\n')
