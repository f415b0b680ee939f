"""Scores of a benchmark from the likelihoods of its answers."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from mmtransmamba.evaluation.language.likelihood import (
    Likelihood,
    encode_pair,
    log_likelihoods,
)
from mmtransmamba.evaluation.language.questions import Question
from mmtransmamba.evaluation.language.tasks import Task


@dataclass(frozen=True)
class Score:
    """A mean over questions.

    Attributes:
        value: The mean; of the perplexity :math:`e^{-\\text{mean log-likelihood}}`.
        error: Its standard error, 0 for one question.
    """

    value: float
    error: float


@dataclass(frozen=True)
class TaskResult:
    """The scores of a model.

    Attributes:
        scores: By metric, see :class:`~mmtransmamba.evaluation.language.Task`.
        questions: How many there are.
        right: For each question whether it counts as answered rightly under the first
            metric.
    """

    scores: dict[str, Score]
    questions: int
    right: tuple[bool, ...]


def evaluate_task(
    model: nn.Module,
    tokenizer: Any,
    task: Task,
    questions: Sequence[Question],
    batch_tokens: int = 4096,
) -> TaskResult:
    """Score a model on the questions of a benchmark.

    Args:
        model: A causal language model of transformers, in evaluation mode.
        tokenizer: Its tokenizer.
        task: The benchmark, for its metrics.
        questions: See :func:`~mmtransmamba.evaluation.language.read_questions`.
        batch_tokens: See :func:`~mmtransmamba.evaluation.language.log_likelihoods`.
    """
    pairs = [
        encode_pair(tokenizer, context, continuation)
        for question in questions
        for context, continuation in zip(
            question.contexts, question.continuations, strict=True
        )
    ]
    found = iter(log_likelihoods(model, pairs, batch_tokens))
    answers = [[next(found) for _ in question.contexts] for question in questions]
    values = {
        metric: [
            _METRICS[metric](q, a) for q, a in zip(questions, answers, strict=True)
        ]
        for metric in task.metrics
    }
    return TaskResult(
        scores={metric: _mean(metric, means) for metric, means in values.items()},
        questions=len(questions),
        right=tuple(value == 1 for value in values[task.metrics[0]]),
    )


def _mean(metric: str, values: list[float]) -> Score:
    mean = statistics.fmean(values)
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    error = spread / math.sqrt(len(values))
    if metric != 'perplexity':
        return Score(mean, error)
    perplexity = math.exp(min(-mean, 700.0))
    return Score(perplexity, perplexity * error)


def _acc(question: Question, answers: list[Likelihood]) -> float:
    logs = [answer.log for answer in answers]
    return float(logs.index(max(logs)) == question.gold)


def _acc_norm(question: Question, answers: list[Likelihood]) -> float:
    logs = [
        answer.log / length
        for answer, length in zip(answers, question.lengths, strict=True)
    ]
    return float(logs.index(max(logs)) == question.gold)


def _greedy(question: Question, answers: list[Likelihood]) -> float:
    return float(answers[question.gold].greedy)


def _log(question: Question, answers: list[Likelihood]) -> float:
    return answers[question.gold].log


_METRICS = dict(acc=_acc, acc_norm=_acc_norm, greedy=_greedy, perplexity=_log)


def relative_recovery(student: float, teacher: float, chance: float) -> float:
    """What a student keeps of a teacher's lead over guessing, 1 for all of it.

    NaN where the teacher itself is not better than guessing.
    """
    lead = teacher - chance
    return (student - chance) / lead if lead > 0 else math.nan
