"""Which option an answer chooses: rules that several benchmarks share."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .prompts import LETTERS

_END = r'(?=[.,:;!?)\]]|\s*$|\s*\n)'


def leading_letter(text: str, letters: str = LETTERS) -> str | None:
    """The option letter an answer begins with: ``B``, ``B. a cat``, ``(B) a cat``.

    A letter that begins a word is none.
    """
    found = re.match(r"\s*[(\[]?([A-Z])(?![\w'’])", text)
    return found[1] if found and found[1] in letters else None


def choose_option(text: str, options: Sequence[str]) -> str | None:
    """The letter of the only option that an answer names, or None.

    These are the rules by which MMBench matches answers before it asks a judge: the
    letter the answer begins with, else the option whose text it is, else the only
    letter in it that stands for an option, else the only option whose text it contains.
    ``A`` and ``I`` are words, too, and count as letters only where something ends: at
    ``A.``, ``(A)`` or the end of a line.
    """
    letters = LETTERS[: len(options)]
    text = text.strip()
    first = leading_letter(text, letters)
    article = first in ('A', 'I') and not re.match(rf'[(\[]?{first}{_END}', text)
    # "B or C", "(B), (C)": such an answer does not choose.
    joined = r'(?:[,/&]\s*(?:or\s|and\s)?|(?:or|and)\s)'
    listed = re.match(rf"[(\[]?\w[)\]]?\s*{joined}\s*[(\[]?[{letters}](?![\w'’])", text)
    if first and not article and not listed:
        return first
    plain = text.rstrip('.').lower()
    for letter, option in zip(letters, options, strict=True):
        if plain == option.strip().rstrip('.').lower():
            return letter
    named = set(re.findall(rf"(?<![\w'’])([{letters}]){_END}", text))
    named |= set(re.findall(rf"(?<![\w'’])([{letters}])(?![\w'’])", text)) - set('AI')
    if named:
        return named.pop() if len(named) == 1 else None
    return _contained_option(text, letters, options)


def _contained_option(text: str, letters: str, options: Sequence[str]) -> str | None:
    """The option whose text is in an answer; of "red" and "dark red" the longer."""
    found = {}
    for letter, option in zip(letters, options, strict=True):
        needle = option.strip().rstrip('.').lower()
        # Not "5" in "15", "1.5" or "5.2".
        bounded = rf'(?<![\w.]){re.escape(needle)}(?!\w|\.\d)'
        if needle and re.search(bounded, text.lower()):
            found[letter] = needle
    longest = [
        letter
        for letter, needle in found.items()
        if not any(needle != other and needle in other for other in found.values())
    ]
    return longest[0] if len(longest) == 1 else None
