"""Reading of yes/no answers in any wording."""

from __future__ import annotations

import re

from .plain_text import final_part, undecorated

_WORDS = {
    'yes': ('yes', 'yeah', 'yep', 'yup'),
    'no': ('no', 'nope', 'nah', 'not', 'cannot', 'never', 'none', 'neither'),
}
_MEANING = {word: meaning for meaning, words in _WORDS.items() for word in words}
_WORD = rf'(?:{"|".join(_MEANING)})'
_DENIED = re.compile(r"\w+n['’]t\b")
_SAID = re.compile(
    rf"\b(?:answer|response|conclusion)\b[^.\n;:]{{0,40}}?(?:\bis\b|['’]s\b|[:=])\s*({_WORD})\b"
)


def read_yes_no(text: str) -> str | None:
    """``'yes'``, ``'no'``, or None if an answer states neither or both.

    Case, markup, quotes and full-width forms are ignored. The rules look, in this
    order, for a part marked as the answer (``<answer>``, ``\boxed``), the first word of
    the answer, a word declared to be the answer, and the only one of the two words that
    occurs. A negation such as "not" or "isn't" is a no. No official rule is as broad;
    the metrics use this function to report how many answers their official rule could
    not read.
    """
    part = final_part(text)
    found = _read(part)
    return found if found or part == text else _read(text)


def _read(text: str) -> str | None:
    text = undecorated(text).lower()
    first = re.match(rf'\W*({_WORD})\b(?! (?:only|doubt|problem))', text)
    if first:
        return _MEANING[first[1]]
    said = {_MEANING[word] for word in _SAID.findall(text)}
    if not said:
        said = {_MEANING[word] for word in re.findall(rf'\b{_WORD}\b', text)}
        if _DENIED.search(text):
            said.add('no')
    return said.pop() if len(said) == 1 else None
