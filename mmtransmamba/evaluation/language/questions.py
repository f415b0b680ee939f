"""One question of a benchmark, as text that a language model is to score."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Question:
    """Pairs of a context and its continuation; the likeliest pair is the answer.

    Attributes:
        contexts: Text in front, one per pair.
        continuations: Text whose likelihood is computed, one per pair.
        gold: Index of the right pair.
        lengths: Characters of each answer, by which ``acc_norm`` divides.
        stem: The question without its options, for :func:`lettered`; empty if it has
            none.
        options: The answers in words, one per pair.
        length: Length of a generated question, in the unit of its task.
    """

    contexts: tuple[str, ...]
    continuations: tuple[str, ...]
    gold: int
    lengths: tuple[int, ...]
    stem: str = ''
    options: tuple[str, ...] = ()
    length: int | None = None

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
            _without_answer(context),
            tuple(choice.strip() for choice in choices),
        )


LETTERS = 'ABCDEFGHIJ'


def lettered(question: Question) -> list[Question]:
    """A question with its options under letters, once for each rotation of the options.

    Every option is once under every letter, so a model that always answers with the
    same letter is right in one rotation of each question.

    Raises:
        ValueError: The question has no options, only one, or more than ten.
    """
    options = question.options
    if not question.stem or not 2 <= len(options) <= len(LETTERS):
        raise ValueError(
            f'a question with {len(options)} options and the stem {question.stem!r} '
            'has no form with letters'
        )
    letters = list(LETTERS[: len(options)])
    rotated = []
    for shift in range(len(options)):
        turned = options[shift:] + options[:shift]
        pairs = zip(letters, turned, strict=True)
        lines = [f'{letter}. {option}' for letter, option in pairs]
        context = '\n'.join((question.stem, *lines, 'Answer:'))
        gold = (question.gold - shift) % len(options)
        rotated.append(Question.choose(context, letters, gold))
    return rotated


def with_options(question: Question, stem: str, options: list[str]) -> Question:
    """The question with another stem and other options for :func:`lettered`."""
    return replace(question, stem=stem, options=tuple(options))


def _without_answer(context: str) -> str:
    for ending in ('\nAnswer:', '\nA:'):
        context = context.removesuffix(ending)
    return context


def check_limit(limit: int | None) -> None:
    """Check a number of questions.

    Raises:
        ValueError: It is less than 1.
    """
    if limit is not None and limit < 1:
        raise ValueError(f'limit={limit} must be 1 at least')
