"""A benchmark whose questions are generated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

from mmtransmamba.evaluation.language.questions import Question, check_limit

QUESTIONS = 32
"""Questions of each length, unless a limit is given."""


@dataclass(frozen=True)
class GeneratedTask:
    """A benchmark without a file.

    Attributes:
        make: Makes a question of a length from a source of random numbers.
        lengths: Default lengths.
        most: Greatest length.
        unit: What a length counts.
        chance: Likelihood accuracy of guessing.
        metrics: As in :class:`~mmtransmamba.evaluation.language.Task`. ``acc`` is the
            choice of the likeliest answer, ``generated`` that the model writes the
            right answer, ``gap`` is the difference.
    """

    make: Callable[[Random, int], Question]
    lengths: tuple[int, ...]
    unit: str
    chance: float
    most: int = 10**6
    metrics: tuple[str, ...] = ('acc', 'generated', 'gap')


def generate_questions(
    name: str,
    task: GeneratedTask,
    limit: int | None = None,
    lengths: Sequence[int] | None = None,
    seed: int = 0,
) -> list[Question]:
    """Questions of each length; a question depends on seed, length and number only.

    Args:
        name: Name of the task.
        task: The task.
        limit: Questions per length, 1 at least; :data:`QUESTIONS` by default.
        lengths: Lengths instead of the task's own.
        seed: Seed.

    Raises:
        ValueError: A length is not positive or too large for the task, or ``limit`` is
            less than 1.
    """
    check_limit(limit)
    lengths = task.lengths if lengths is None else tuple(dict.fromkeys(lengths))
    for length in lengths:
        if not 1 <= length <= task.most:
            raise ValueError(
                f'length {length} of {name} must be between 1 and {task.most} '
                f'{task.unit}'
            )
    return [
        replace(task.make(Random(f'{seed} {name} {length} {i}'), length), length=length)
        for length in lengths
        for i in range(QUESTIONS if limit is None else limit)
    ]


def choose(rng: Random, context: str, right: str, wrong: Sequence[str]) -> Question:
    """A question with its answers in random order."""
    choices = [right, *wrong]
    rng.shuffle(choices)
    return Question.choose(context, choices, choices.index(right))
