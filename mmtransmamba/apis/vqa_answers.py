"""Answers of vision-language models to a question set, their speed and state size."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from mmtransmamba.datasets import collate_conversations
from mmtransmamba.evaluation import AnswerAccuracy
from mmtransmamba.evaluation.answer_accuracy import normalise
from mmtransmamba.models.language.cache_names import as_argument, returned_cache

CONTEXT, STEPS, BATCH = 1024, 32, 100


@dataclass
class Evaluated:
    """Answers of one model to the test questions.

    Attributes:
        answers: In the questions' order.
        record: Metrics.
    """

    answers: list[str]
    record: dict[str, Any]


@torch.inference_mode()
def evaluate(model: nn.Module, dataset: Any, head: nn.Module) -> Evaluated:
    """Answer all questions, and measure the speed."""
    model.eval()
    processor = dataset.encoder.processor
    batches = [
        collate_conversations([dataset[i] for i in part.tolist()])
        for part in torch.arange(len(dataset)).split(BATCH)
    ]
    head.predict(model, processor, batches[0])  # warm-up
    begin = time.perf_counter()
    said = [one for batch in batches for one in head.predict(model, processor, batch)]
    seconds = time.perf_counter() - begin
    metric = AnswerAccuracy(allowed=sorted({q.answer for q in dataset.questions}))
    metric.process(None, said)
    kept, decode = decoding(model, batches[0])
    record = dict(
        **metric.compute_metrics(metric.results),
        answers_per_second=len(said) / seconds,
        ms_per_token=decode,
        state_kib_question=kept[0] / 1024,
        state_kib_long=kept[1] / 1024,
        parameters=sum(p.numel() for p in model.parameters()),
    )
    return Evaluated([one['prediction'] for one in said], record)


def decoding(model: nn.Module, batch: dict) -> tuple[tuple[int, int], float]:
    """State bytes after a question and after a long context; then ms per token."""
    one = batch['attention_mask'][0].bool()
    outputs = model(
        input_ids=batch['input_ids'][:1, one],
        pixel_values=batch['pixel_values'][:1],
        use_cache=True,
    )
    short = returned_cache(outputs)
    text = batch['input_ids'][0, -4:].repeat(CONTEXT // 4)[None]
    cache = returned_cache(model(input_ids=text, use_cache=True))
    times = []
    for _ in range(STEPS):
        begin = time.perf_counter()
        model(input_ids=text[:, :1], use_cache=True, **as_argument(cache))
        times.append(time.perf_counter() - begin)
    return (state_bytes(short), state_bytes(cache)), 1000 * float(np.median(times))


def state_bytes(cache: Any) -> int:
    """Size in bytes of the state kept between two tokens."""
    total = 0
    for layer in cache.layers:
        kept = [getattr(layer, 'keys', None), getattr(layer, 'values', None)]
        kept += getattr(layer, 'conv_states', {}).values()
        kept += getattr(layer, 'recurrent_states', {}).values()
        total += sum(tensor.nbytes for tensor in kept if tensor is not None)
    return total


def majority(train: Any, test: Any) -> dict[str, float]:
    """Accuracy of the most frequent training answer of each category."""
    counts: dict[str, Counter] = {}
    for each in train.questions:
        counts.setdefault(each.category, Counter())[each.answer] += 1
    guesses = {name: count.most_common(1)[0][0] for name, count in counts.items()}
    metric = AnswerAccuracy()
    metric.process(
        None,
        [
            dict(prediction=guesses[q.category], answer=q.answer, category=q.category)
            for q in test.questions
        ],
    )
    return metric.compute_metrics(metric.results)


def agreement(one: list[str], other: list[str]) -> float:
    same = [normalise(a) == normalise(b) for a, b in zip(one, other, strict=True)]
    return 100 * sum(same) / len(same)
