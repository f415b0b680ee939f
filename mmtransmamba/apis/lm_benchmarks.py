"""Comparison of language models on zero-shot and generated benchmarks."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmtransmamba.apis.lm_comparison import LanguageComparison, benchmark
from mmtransmamba.apis.loading import load
from mmtransmamba.apis.vlm_loading import choose_device
from mmtransmamba.evaluation.language import (
    GENERATED,
    GROUPS,
    TASKS,
    Question,
    TaskResult,
    evaluate_letters,
    evaluate_task,
    generate_questions,
    read_questions,
)
from mmtransmamba.utils.dtypes import floating_dtype
from mmtransmamba.utils.evaluation_mode import evaluating
from mmtransmamba.utils.processors import load_tokenizer


def evaluate_lm(
    models: Sequence[str | Path | tuple[nn.Module, Any]],
    tasks: Sequence[str],
    data: str | Path | None = None,
    limit: int | None = None,
    batch_tokens: int = 4096,
    device: str | torch.device = 'cpu',
    dtype: str | None = None,
    lengths: Sequence[int] | None = None,
    letters: bool = False,
    seed: int = 0,
    after: Callable[[LanguageComparison], None] | None = None,
) -> LanguageComparison:
    """Score language models on benchmarks.

    Official sets are scored as lm-evaluation-harness does.

    Args:
        models: Folders of causal language models with their tokenizers, or pairs of
            a model and its tokenizer. The others are compared with the first.
        tasks: Names in :data:`~mmtransmamba.evaluation.language.TASKS`,
            :data:`~mmtransmamba.evaluation.language.GENERATED` and
            :data:`~mmtransmamba.evaluation.language.GROUPS`.
        data: Folder with the files of official benchmarks.
        limit: Number of questions to use from each benchmark, the first ones; for a
            generated one, of each length.
        batch_tokens: Tokens per batch.
        device: Device for models given as folders; ``'auto'`` is the GPU if available.
        dtype: Their floating-point type by name; by default that of the folder.
        lengths: Lengths of generated questions instead of each benchmark's own.
        letters: Whether official benchmarks with options are also asked with letters,
            see :func:`~mmtransmamba.evaluation.language.evaluate_letters`.
        seed: Seed of generated questions.
        after: Called with the comparison after each model, so that a later one that
            fails loses nothing.

    Raises:
        FileNotFoundError: A folder or a benchmark's file is missing.
        ValueError: A benchmark is unknown, one with a file lacks ``data``, a file has
            other contents, a length or ``letters`` fits no benchmark, or a folder has
            no tokenizer. All of this is checked before the first model is scored.
    """
    names = _names(tasks)
    _check_options(names, data, lengths, letters)
    questions = {
        name: read_questions(TASKS[name], data, limit)
        if name in TASKS
        else generate_questions(name, GENERATED[name], limit, lengths, seed)
        for name in names
    }
    device = choose_device(device)
    dtype = None if dtype is None else floating_dtype(dtype)
    tokenizers = [
        model[1] if isinstance(model, tuple) else load_tokenizer(model)
        for model in models
    ]
    comparison = LanguageComparison()
    for number, (model, tokenizer) in enumerate(zip(models, tokenizers, strict=True)):
        name = f'model {number}' if isinstance(model, tuple) else str(model)
        own = model[0] if isinstance(model, tuple) else load(model, None, device, dtype)
        start = time.perf_counter()
        with evaluating(own):
            comparison.results[name] = {
                task: _evaluate(own, tokenizer, task, rows, batch_tokens, letters)
                for task, rows in questions.items()
            }
        comparison.seconds[name] = time.perf_counter() - start
        del own
        gc.collect()
        if after is not None:
            after(comparison)
    return comparison


def _names(tasks: Sequence[str]) -> list[str]:
    """The benchmarks, those of a group in its place."""
    names = [name for task in tasks for name in GROUPS.get(task, (task,))]
    unknown = [name for name in names if name not in TASKS and name not in GENERATED]
    if unknown or not names:
        raise ValueError(
            f'benchmark {", ".join(unknown) or "none"} is unknown; accepted: '
            f'{", ".join((*TASKS, *GENERATED, *GROUPS))}'
        )
    return list(dict.fromkeys(names))


def _check_options(
    names: Sequence[str],
    data: str | Path | None,
    lengths: Sequence[int] | None,
    letters: bool,
) -> None:
    official = [name for name in names if name in TASKS]
    if official and data is None:
        raise ValueError(f'{official[0]} needs data, the folder with its file')
    if lengths is not None and len(official) == len(names):
        raise ValueError(
            f'lengths are for generated benchmarks ({", ".join(GENERATED)}), but there '
            f'is only {", ".join(names)}'
        )
    if letters and not any(_has_options(name) for name in names):
        raise ValueError(
            'letters need a benchmark with several options, but there is only '
            f'{", ".join(names)}'
        )


def _has_options(name: str) -> bool:
    return name in TASKS and 'acc' in TASKS[name].metrics and name not in WITHOUT_STEM


WITHOUT_STEM = ('winogrande',)
"""Benchmarks whose pairs have no common context that could be the question."""


def _evaluate(
    model: nn.Module,
    tokenizer: Any,
    name: str,
    questions: Sequence[Question],
    batch_tokens: int,
    letters: bool,
) -> TaskResult:
    result = evaluate_task(model, tokenizer, benchmark(name), questions, batch_tokens)
    if not (letters and _has_options(name)):
        return result
    scores = evaluate_letters(model, tokenizer, questions, batch_tokens)
    return replace(result, scores=result.scores | scores)
