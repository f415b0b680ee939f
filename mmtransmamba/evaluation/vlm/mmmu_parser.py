"""The official parser's rules for reading an MMMU answer from free text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .prompts import LETTERS

# Indicators that may precede an answer, in the official order; "=" only in the last
# line.
_INDICATORS = (
    'could be ',
    'so ',
    'is ',
    'thus ',
    'therefore ',
    'final ',
    'answer ',
    'result ',
)
_NUMBERS = (
    r'-?\b\d{1,3}(?:,\d{3})+\b',
    r'-?\d+(?:\.\d+)?[eE][+-]?\d+',
    r'-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])',
)


def parse_choice(text: str, options: Sequence[str]) -> str | None:
    """The option letter that an answer chooses, or None if it points to no option.

    Letters in brackets take precedence over letters between spaces. Only a text of more
    than five words is searched for the options themselves. Of several candidates, the
    last one mentioned is chosen.
    """
    letters = LETTERS[: len(options)]
    for char in (',', '.', '!', '?', ';', ':', "'"):
        text = text.strip(char)
    # With spaces around it, a letter at either end also stands between spaces.
    text = f' {text} '
    for form in ('({})', ' {} '):
        places = {a: text.rfind(form.format(a)) for a in letters}
        places = {a: place for a, place in places.items() if place >= 0}
        if places:
            return max(places, key=places.get)
    if len(text.split()) <= 5:
        return None
    lower = text.lower()
    places = {
        a: lower.rfind(option.lower())
        for a, option in zip(letters, options, strict=True)
        if option.lower() in lower
    }
    return max(places, key=places.get) if places else None


def _key_parts(text: str) -> list[str]:
    """The shortest tail after an indicator in each line, or else the whole text."""
    text = text.strip().strip('.').lower()
    lines = text.split('\n')
    parts = []
    for number, line in enumerate(lines, 1):
        indicators = _INDICATORS + (('=',) if number == len(lines) else ())
        shortest = ''
        for tail in (line.split(i)[-1].strip() for i in indicators if i in line):
            if not shortest or len(tail) < len(shortest):
                shortest = tail
        if shortest and shortest not in set(":,.!?;'"):
            parts.append(shortest)
    return parts or [text]


def normalise(text: str) -> list[float | str]:
    """A number rounded to two decimals, or the text in lower case.

    A single character gets a space before or after it, so that it is not found in
    every word.
    """
    text = text.strip()
    try:
        return [round(float(text.replace(',', '')), 2)]
    except ValueError:
        text = text.lower()
    return [f' {text}', f'{text} '] if len(text) == 1 else [text]


def parse_open(text: str) -> list[float | str]:
    """All candidates for the answer to an open question: texts and numbers."""
    parts = _key_parts(text)
    numbers = [
        number
        for part in parts
        for pattern in _NUMBERS
        for number in re.findall(pattern, part)
    ]
    candidates = [c for found in parts + numbers for c in normalise(found)]
    return list(dict.fromkeys(candidates))


def open_is_right(candidates: Sequence[float | str], gold: Sequence[str]) -> bool:
    """Whether a number is a right one, or a text contains a right one."""
    right = [answer for text in gold for answer in normalise(text)]
    for candidate in candidates:
        if isinstance(candidate, str):
            if any(isinstance(r, str) and r in candidate for r in right):
                return True
        elif candidate in right:
            return True
    return False
