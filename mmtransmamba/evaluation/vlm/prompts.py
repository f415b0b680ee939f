"""The wording of the questions in LLaVA-1.5's evaluation."""

from __future__ import annotations

from collections.abc import Sequence

SHORT_ANSWER = 'Answer the question using a single word or phrase.'
OPTION_LETTER = "Answer with the option's letter from the given choices directly."
LETTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ'


def ask_short(question: str) -> str:
    """A question to be answered in a word or two."""
    return f'{question}\n{SHORT_ANSWER}'


def list_options(options: Sequence[str]) -> str:
    """Lines ``A. text``."""
    return '\n'.join(
        f'{letter}. {text}' for letter, text in zip(LETTERS, options, strict=False)
    )


def ask_options(question: str, options: Sequence[str], hint: str = '') -> str:
    """A question to be answered by the letter of an option."""
    parts = [hint, question, list_options(options), OPTION_LETTER]
    return '\n'.join(part for part in parts if part)
