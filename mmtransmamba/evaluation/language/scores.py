"""Scores of a benchmark from the likelihoods of its answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from mmtransmamba.evaluation.language.answering import Answers, answer
from mmtransmamba.evaluation.language.generated import GeneratedTask
from mmtransmamba.evaluation.language.likelihood import Likelihood
from mmtransmamba.evaluation.language.questions import Question
from mmtransmamba.evaluation.language.tasks import Task
from mmtransmamba.evaluation.language.writing import same_words
from mmtransmamba.utils.seed_statistics import mean_and_deviation


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
        by_length: Scores by the length of the questions, for generated benchmarks.
    """

    scores: dict[str, Score]
    questions: int
    right: tuple[bool, ...]
    by_length: dict[int, dict[str, Score]] = field(default_factory=dict)


def evaluate_task(
    model: nn.Module,
    tokenizer: Any,
    task: Task | GeneratedTask,
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
    writes = bool(WRITTEN & set(task.metrics))
    answers = answer(model, tokenizer, questions, batch_tokens, writes)
    values = {
        metric: [METRICS[metric](q, a) for q, a in zip(questions, answers, strict=True)]
        for metric in task.metrics
    }
    lengths = [question.length for question in questions]
    by_length = {
        length: {
            metric: mean_score(
                metric,
                [v for v, own in zip(every, lengths, strict=True) if own == length],
            )
            for metric, every in values.items()
        }
        for length in dict.fromkeys(lengths)
        if length is not None
    }
    return TaskResult(
        scores={metric: mean_score(metric, means) for metric, means in values.items()},
        questions=len(questions),
        right=tuple(value == 1 for value in values[task.metrics[0]]),
        by_length=by_length,
    )


WRITTEN = {'generated', 'gap'}
"""Metrics for which a model has to write."""


def mean_score(metric: str, values: Sequence[float]) -> Score:
    """Mean of a metric over questions, with its standard error."""
    mean, deviation = mean_and_deviation(values)
    error = deviation / math.sqrt(len(values))
    if metric != 'perplexity':
        return Score(mean, error)
    perplexity = math.exp(min(-mean, 700.0))
    return Score(perplexity, perplexity * error)


def likeliest(answers: list[Likelihood]) -> int:
    """Index of the likeliest answer, the first of several."""
    logs = [answer.log for answer in answers]
    return logs.index(max(logs))


def _acc(question: Question, answers: Answers) -> float:
    return float(likeliest(answers.likelihoods) == question.gold)


def _acc_norm(question: Question, answers: Answers) -> float:
    # An empty answer is not chosen, as in lm-evaluation-harness, which divides by 0.
    logs = [
        own.log / length if length else -math.inf
        for own, length in zip(answers.likelihoods, question.lengths, strict=True)
    ]
    return float(logs.index(max(logs)) == question.gold)


def _greedy(question: Question, answers: Answers) -> float:
    return float(answers.likelihoods[question.gold].greedy)


def _log(question: Question, answers: Answers) -> float:
    return answers.likelihoods[question.gold].log


def _generated(question: Question, answers: Answers) -> float:
    wanted = question.continuations[question.gold]
    return float(same_words(answers.written or '', wanted))


def _gap(question: Question, answers: Answers) -> float:
    return _acc(question, answers) - _generated(question, answers)


METRICS = dict(
    acc=_acc,
    acc_norm=_acc_norm,
    greedy=_greedy,
    perplexity=_log,
    generated=_generated,
    gap=_gap,
)


def relative_recovery(student: float, teacher: float, chance: float) -> float:
    """The share of a teacher's lead over guessing that a student keeps, 1 for all.

    NaN where the teacher itself is not better than guessing.
    """
    lead = teacher - chance
    return (student - chance) / lead if lead > 0 else math.nan
