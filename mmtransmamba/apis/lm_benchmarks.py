"""Comparison of language models on zero-shot benchmarks."""

from __future__ import annotations

import gc
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmtransmamba.apis.loading import load
from mmtransmamba.apis.vlm_loading import choose_device
from mmtransmamba.evaluation.language import (
    TASKS,
    TaskResult,
    evaluate_task,
    read_questions,
    relative_recovery,
)
from mmtransmamba.utils.checkpoint_files import write
from mmtransmamba.utils.dtypes import floating_dtype
from mmtransmamba.utils.processors import load_tokenizer


@dataclass
class LanguageComparison:
    """Scores of several models; the others are compared with the first.

    Attributes:
        results: Scores by model and benchmark.
        seconds: Evaluation time by model.
    """

    results: dict[str, dict[str, TaskResult]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def average(self, model: str) -> float:
        """Mean of the first metric over the benchmarks, in percent."""
        firsts = [_first(result) for result in self.results[model].values()]
        return 100 * sum(firsts) / len(firsts)

    def recovery(self, model: str) -> float:
        """Mean :func:`relative recovery <relative_recovery>` of the first model.

        Benchmarks on which the first model does not beat guessing are excluded.
        """
        teacher = next(iter(self.results.values()))
        shares = [
            relative_recovery(_first(result), _first(teacher[name]), TASKS[name].chance)
            for name, result in self.results[model].items()
        ]
        shares = [share for share in shares if not math.isnan(share)]
        return sum(shares) / len(shares) if shares else math.nan

    def win_and_tie(self, model: str) -> float:
        """Share of questions that a model answers correctly if the first model does.

        The share is over all questions of all benchmarks that the first model answers
        correctly.
        """
        teacher = next(iter(self.results.values()))
        kept = [
            own
            for name, result in self.results[model].items()
            for own, other in zip(result.right, teacher[name].right, strict=True)
            if other
        ]
        return sum(kept) / len(kept) if kept else math.nan

    def table(self) -> str:
        """The scores as a Markdown table, in percent with standard errors."""
        names = list(self.results)
        lines = [
            f'| Benchmark | Metric | Questions | {" | ".join(names)} |',
            '|' + '---|' * (3 + len(names)),
        ]
        first = self.results[names[0]]
        for task, result in first.items():
            for metric in result.scores:
                cells = [
                    _cell(metric, self.results[name][task].scores[metric])
                    for name in names
                ]
                row = [task, metric, str(result.questions), *cells]
                lines.append(f'| {" | ".join(row)} |')
        summary = {
            'mean of the first metrics': [f'{self.average(n):.2f}' for n in names],
            'recovery of the first model': [f'{self.recovery(n):.3f}' for n in names],
            'right where the first is': [f'{self.win_and_tie(n):.3f}' for n in names],
        }
        lines += [f'| {k} | | | {" | ".join(v)} |' for k, v in summary.items()]
        return '\n'.join(lines)

    def save(self, path: str | Path) -> None:
        """Write all scores, and which questions were answered correctly, as JSON."""
        content = {
            model: dict(
                seconds=self.seconds[model],
                tasks={name: asdict(result) for name, result in results.items()},
            )
            for model, results in self.results.items()
        }
        write(path, json.dumps(content, indent=1).encode())


def _first(result: TaskResult) -> float:
    return next(iter(result.scores.values())).value


def _cell(metric: str, score: Any) -> str:
    scale = 1 if metric == 'perplexity' else 100
    return f'{scale * score.value:.2f} ± {scale * score.error:.2f}'


def evaluate_lm(
    models: Sequence[str | Path | tuple[nn.Module, Any]],
    tasks: Sequence[str],
    data: str | Path,
    limit: int | None = None,
    batch_tokens: int = 4096,
    device: str | torch.device = 'cpu',
    dtype: str | None = None,
) -> LanguageComparison:
    """Score language models on zero-shot benchmarks, as lm-evaluation-harness does.

    Args:
        models: Folders of causal language models with their tokenizers, or pairs of
            a model and its tokenizer. The others are compared with the first.
        tasks: Names in :data:`~mmtransmamba.evaluation.language.TASKS`.
        data: Folder with the benchmarks' files.
        limit: Number of questions to use from each benchmark, the first ones.
        batch_tokens: Tokens per batch.
        device: Device for models given as folders; ``'auto'`` is the GPU if available.
        dtype: Their floating-point type by name; by default that of the folder.

    Raises:
        FileNotFoundError: A folder or a benchmark's file is missing.
        ValueError: A benchmark is unknown, a file has other contents, or a folder has
            no tokenizer. All of this is checked before the first model is scored.
    """
    unknown = [task for task in tasks if task not in TASKS]
    if unknown or not tasks:
        raise ValueError(
            f'benchmark {", ".join(unknown) or "none"} is unknown; accepted: '
            f'{", ".join(TASKS)}'
        )
    questions = {task: read_questions(TASKS[task], data, limit) for task in tasks}
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
        comparison.results[name] = {
            task: evaluate_task(own, tokenizer, TASKS[task], rows, batch_tokens)
            for task, rows in questions.items()
        }
        comparison.seconds[name] = time.perf_counter() - start
        del own
        gc.collect()
    return comparison
