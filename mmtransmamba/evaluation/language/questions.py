"""One question of a benchmark, as text that a language model is to score."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Question:
    """Pairs of a context and its continuation; the likeliest pair is the answer.

    Attributes:
        contexts: Text in front, one per pair.
        continuations: Text whose likelihood is computed, one per pair.
        gold: Index of the right pair.
        lengths: Characters of each answer, by which ``acc_norm`` divides.
    """

    contexts: tuple[str, ...]
    continuations: tuple[str, ...]
    gold: int
    lengths: tuple[int, ...]

    @classmethod
    def choose(
        cls,
        context: str,
        choices: list[str],
        gold: int,
        delimiter: str = ' ',
    ) -> Question:
        """One context with several continuations.

        Raises:
            ValueError: ``gold`` is not the index of a choice.
        """
        if not 0 <= gold < len(choices):
            raise ValueError(
                f'the right answer is number {gold}, but there are {len(choices)} '
                'choices'
            )
        return cls(
            (context,) * len(choices),
            tuple(delimiter + choice for choice in choices),
            gold,
            tuple(len(choice) for choice in choices),
        )
