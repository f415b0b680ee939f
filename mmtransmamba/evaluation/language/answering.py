"""A language model's answers to questions."""

from __future__ import annotations

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
from mmtransmamba.evaluation.language.writing import write_answers


@dataclass(frozen=True)
class Answers:
    """A model's answer to a question.

    Attributes:
        likelihoods: One for each pair.
        written: The answer that it writes itself; None if not asked for.
    """

    likelihoods: list[Likelihood]
    written: str | None = None


def answer(
    model: nn.Module,
    tokenizer: Any,
    questions: Sequence[Question],
    batch_tokens: int = 4096,
    writes: bool = False,
) -> list[Answers]:
    """Likelihoods of all answers and, if asked for, the answers that a model writes.

    Args:
        model: A causal language model of transformers, in evaluation mode.
        tokenizer: Its tokenizer.
        questions: The questions.
        batch_tokens: Tokens per batch.
        writes: Whether the model also writes answers.
    """
    pairs = [
        [
            encode_pair(tokenizer, context, continuation)
            for context, continuation in zip(
                question.contexts, question.continuations, strict=True
            )
        ]
        for question in questions
    ]
    flat = [pair for own in pairs for pair in own]
    found = iter(log_likelihoods(model, flat, batch_tokens))
    likelihoods = [[next(found) for _ in own] for own in pairs]
    written: Sequence[str | None] = [None] * len(questions)
    if writes:
        prompts = [
            (own[question.gold][0], max(len(after) for _, after in own))
            for question, own in zip(questions, pairs, strict=True)
        ]
        written = write_answers(model, tokenizer, prompts, batch_tokens)
    return [Answers(*both) for both in zip(likelihoods, written, strict=True)]
