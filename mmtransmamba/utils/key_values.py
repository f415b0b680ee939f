"""Values on a command line, in the syntax of mmengine's ``DictAction``."""

from __future__ import annotations

from typing import Any

_PAIRS = {')': '(', ']': '['}


def parse_value(text: str) -> Any:
    """Read a number, bool, None, list, tuple or string.

    ``1,2`` and ``[1,2]`` are lists, ``(1,2)`` is a tuple; both may be nested. The rules
    are those of mmengine, except that spaces within a string are kept.

    Raises:
        ValueError: Brackets are not balanced.
    """
    text = text.strip('\'" ')
    parts, ends = _split(text)
    if text[:1] in ('(', '[') and ends == len(text):
        values = [parse_value(part) for part in _split(text[1:-1])[0]]
        return tuple(values) if text[0] == '(' else values
    if ',' in text:
        return [parse_value(part) for part in parts]
    return _scalar(text)


def _split(text: str) -> tuple[list[str], int]:
    """The parts between the commas outside any bracket.

    Returns:
        The parts, and the end of the first outermost pair of brackets.
    """
    parts, opened, start, ends = [], [], 0, 0
    for place, char in enumerate(text):
        if char in _PAIRS.values():
            opened.append(char)
        elif char in _PAIRS:
            if not opened or opened.pop() != _PAIRS[char]:
                raise ValueError(f'brackets do not match in "{text}"')
            if not opened:
                ends = ends or place + 1
        elif char == ',' and not opened:
            parts.append(text[start:place])
            start = place + 1
    if opened:
        raise ValueError(f'brackets do not match in "{text}"')
    # As in Python, a comma at the end adds nothing.
    return parts + [text[start:]] if text[start:].strip() else parts, ends


def _scalar(text: str) -> Any:
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            pass
    words = {'true': True, 'false': False}
    if text.lower() in words:
        return words[text.lower()]
    return None if text == 'None' else text
