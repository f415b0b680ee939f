"""Rules shared by several benchmarks to find the option that an answer chooses."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .plain_text import (
    explicit_parts,
    undecorated,
    with_letters_marked,
    without_thoughts,
)
from .prompts import LETTERS

_JOINED = r'(?:[,/&+]\s*(?:or\s|and\s)?|(?:or|and|nor)\s)'
_NOUN = r'(?i:options?|choices?|letters?|alternatives?|answers?)'
_IS = r'(?i:is|are|was|were|would be|should be|must be|can be|being|seems?)'
_RATHER = (
    r'(?:\w+ly\s+|also\s+|both\s+|all\s+)?(?:the\s+)?(?:most\s+|only\s+|best\s+)?'
    r'(?:\w+ly\s+)?'
)
_GOOD = (
    r'(?i:correct|right|true|best|accurate|appropriate|suitable|answer|option|choice)'
)
_BAD = (
    r'(?i:not|wrong|incorrect|false|inaccurate|invalid|excluded|eliminated|ruled out|'
    r'unlikely|irrelevant|unrelated)'
)
_PICK = r'(?i:choose|chose|select|pick|go with|going with|opt for|settle on)'
# "A" and "I" are also words. They count as letters before a delimiter, …
_END = r'(?=\s*[.,:;!?)\]、…/|=]|\s*$|\s*\n|\s+[-–—→])'
# … after a word about letters, before a reason or a judgement, and in a list.
_NO_WORDS = (
    rf"(?<=\b)({_NOUN}:?\s+)([AI])(?![\w'’])",
    r"()(?<![\w'’])([AI])(?=\s+(?:because|since|due to|given|as it)\b)",
    rf"()(?<![\w'’])([AI])(?=\s+{_IS}\s+{_RATHER}(?:{_GOOD}|{_BAD})\b)",
    rf"()(?<![\w'’])([AI])(?=\s*{_JOINED}\s*\(?[A-Z]\b(?!['’]))",
    rf"((?<![\w'’])[A-Z]\)?\s*{_JOINED}\s*)([AI])(?![\w'’]|\s+[a-z])",
)


def leading_letter(text: str, letters: str = LETTERS) -> str | None:
    """The option letter at the start of an answer: ``B``, ``B. a cat``, ``(B) a cat``.

    The first letter of a word does not count.
    """
    found = re.match(r"\s*[(\[]?([A-Z])(?![\w'’])", text)
    return found[1] if found and found[1] in letters else None


def choose_option(text: str, options: Sequence[str]) -> str | None:
    """The letter of the only option that an answer chooses, or None.

    These rules extend those by which MMBench matches answers before it asks a judge.
    If an answer marks its final part (``<answer>``, ``\\boxed``), only that part
    counts, provided that it chooses an option. Several different ones choose none.
    Thoughts (``<think>``) do not count. Markup, brackets, quotes and full-width
    forms are ignored. The first of these rules that finds a letter decides:

    1. the letter at the start of the answer, if a delimiter follows (``B.``);
    2. the letter declared to be the answer ("the answer is B", "B is correct");
    3. any other letter at the start of the answer;
    4. the option whose text equals the answer;
    5. the only letter in it that stands for an option and is not declared wrong;
    6. the only option whose text it contains.

    If a step finds several letters, none is chosen. ``A`` and ``I`` are also words.
    They count as letters only with some decoration, before a delimiter, in a list of
    letters, or beside words such as "option", "because" and "is correct".
    """
    parts = explicit_parts(text)
    chosen = {_choose(part, options) for part in parts} - {None}
    if chosen:
        return chosen.pop() if len(chosen) == 1 else None
    return _choose(without_thoughts(text), options)


def choose_letter(text: str, count: int) -> str | None:
    """As :func:`choose_option`, for options whose texts are unknown.

    Args:
        text: The answer.
        count: Number of options.
    """
    return choose_option(text, [''] * count)


def _choose(text: str, options: Sequence[str]) -> str | None:
    letters = LETTERS[: len(options)]
    plain = undecorated(text)
    marked = _marked(text, letters)
    letter = rf"\(?(?<![\w'’])([{letters}])(?![\w'’])\)?"
    clear = rf"(?:\(([{letters}])\)|(?<![\w'’])([{letters}]){_END})"
    listed = re.match(rf'{letter}\s*{_JOINED}\s*{letter}', marked)
    first = None if listed else leading_letter(marked, letters)
    if first and re.match(clear, marked):
        return first
    said = _announced(marked, letters)
    if said:
        return said.pop() if len(said) == 1 else None
    if first and first not in 'AI':
        return first
    whole = plain.rstrip('.').lower()
    for other, option in zip(letters, options, strict=True):
        if whole and whole == undecorated(option).rstrip('.').lower():
            return other
    small = _small_letter(plain)
    if small and small in letters:
        return small
    named = {a or b for a, b in re.findall(clear, marked)}
    others = re.findall(rf"(?<![\w'’])([{letters}])(?![\w'’])", marked)
    named |= set(others) - set('AI')
    if named:
        return named.pop() if len(named) == 1 else None
    return _contained_option(plain, letters, options)


def _marked(text: str, letters: str) -> str:
    """The text with option letters marked, without those declared wrong."""
    marked = with_letters_marked(text)
    for pattern in _NO_WORDS:
        marked = re.sub(pattern, r'\1(\2)', marked)
    one = rf"(?:\([{letters}]\)|(?<![\w'’])[{letters}](?![\w'’)]))"
    several = rf'(?:{_NOUN}\s+)?{one}(?:\s*{_JOINED}\s*{one})*'
    # "Rather than F or G, A": a list ends after its conjunction.
    fewer = (
        rf'(?:{_NOUN}\s+)?{one}(?:(?:\s*,\s*{one})*\s*,?\s*'
        rf'(?:or|and|nor|[/&+])\s*{one})?'
    )
    helps = r'(?i:is|are|was|were|does|do|can|could|would)'
    for pattern in (
        rf'{several}\s+{_IS}\s+{_RATHER}{_BAD}\b',
        rf"{several}\s+{helps}(?:n['’]?t|not)\b",
        r"(?i:\bnot|n['’]t|\bneither|\bnor|\brather than|\binstead of|\bunlike|"
        r'\beliminate|\brule out|\bexclude|\bexcept(?: for)?)\s+(?i:be\s+|the\s+)?'
        rf'{fewer}(?!\w)',
        rf'^{one}\s*\?(?=\s*\w)',  # "A? No, B."
    ):
        marked = re.sub(pattern, '', marked)
    return marked.strip()


def _announced(marked: str, letters: str) -> set[str]:
    """The letters declared to be the answer; only the "final" one, if there is one."""
    one = (
        rf"(?:\(([{letters}])\)|(?<![\w'’])([{letters}])"
        rf"(?:{_END}|(?![\w'’])(?<![AI])))"
    )
    some = rf'(?:{_NOUN}\s*:?\s*)?{one}(?:\s*{_JOINED}\s*{one})?'
    verb = (
        r"(?:['’]s\b|(?i:is|was|would be|should be|must be|be|seems to be)\b|[:=]|→|->)"
    )
    subject = r'(?i:answer|option|choice|conclusion|result|selection|solution)'
    said: dict[int, tuple[set[str], bool]] = {}
    for pattern in (
        rf'\b{subject}\b[^.\n;:]{{0,40}}?{verb}\s*:?\s*(?:the\s+)?{some}',
        rf'\b(?i:answer)\s+{some}',
        rf'\b{_PICK}\s+(?:the\s+)?{some}',
        rf'(?:{one}\s*{_JOINED}\s*)?{one}\s+{_IS}\s+{_RATHER}{_GOOD}\b',
    ):
        for found in re.finditer(pattern, marked):
            around = marked[max(0, found.start() - 20) : found.end()]
            final = re.search(r'(?i:final|therefore|thus|hence|conclusion)', around)
            named = {letter for letter in found.groups() if letter}
            said[found.end()] = named, bool(final)
    finals = [named for named, final in said.values() if final]
    return set().union(*(finals or [named for named, _ in said.values()]))


def _small_letter(text: str) -> str | None:
    """The letter of ``b``, ``(b) a dog``, ``b. a dog`` or "the answer is b"."""
    alone = re.match(r'\(?([a-z])(?:[).:](?=\s|$)|$)', text)
    if alone:
        return alone[1].upper()
    # "a" and "i" are also words.
    one = r"\(?(?:([b-hj-z])(?![\w'’-])|([ai])(?=\W*$|[).:,;]))"
    for before in (
        r'(?i:\banswer|答案)(?:\s*(?:\b(?i:is|are)\b|是|为))?\W{0,4}',
        rf'\b{_NOUN}\b\s*:?\s*',
        rf'\b{_PICK}\s+',
        r"^(?i:it\s+is|it['’]?s)\s+",
    ):
        found = re.search(before + one, text)
        if found:
            return (found[1] or found[2]).upper()
    return None


def _contained_option(text: str, letters: str, options: Sequence[str]) -> str | None:
    """The option whose text is in an answer; the longer of "red" and "dark red"."""
    found = {}
    for letter, option in zip(letters, options, strict=True):
        needle = undecorated(option).rstrip('.').lower()
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
