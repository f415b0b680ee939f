"""Reading of yes/no answers in any wording."""

from __future__ import annotations

import re

from .plain_text import explicit_parts, undecorated, without_thoughts

# Words that mean yes or no anywhere, …
_WORDS = {
    'yes': ('yes', 'yeah', 'yep', 'yup'),
    'no': ('no', 'nope', 'nah', 'not', 'cannot', 'never', 'none', 'neither'),
}
# … and words that do so as the whole answer or its first clause.
_CLAUSES = {
    'yes': (
        *('true', 'correct', 'right', 'affirmative', 'sure', 'certainly', 'indeed'),
        *('definitely', 'absolutely', 'of course', 'y'),
        *(
            'oui',
            'sí',
            'ja',
            'да',
            'はい',
            '是的',
            '是',
            '有',
            '对',
            '正确',
            '네',
            '예',
        ),
    ),
    'no': (
        *('false', 'incorrect', 'wrong', 'negative', 'nobody', 'n'),
        *('non', 'nein', 'нет', 'いいえ', '不是', '没有', '不对', '错误', '否', '不'),
        '아니요',
    ),
}


def _meanings(table: dict[str, tuple[str, ...]]) -> dict[str, str]:
    return {word: meaning for meaning, words in table.items() for word in words}


_MEANING = _meanings(_WORDS) | _meanings(_CLAUSES)
_WORD = rf'(?:{"|".join(_meanings(_WORDS))})'
_CLAUSE = rf'(?:{"|".join(_meanings(_CLAUSES))})'
_FIRST = re.compile(rf'\W*(?:({_WORD})\b|({_CLAUSE})\s*(?![\w\s]))')
_DENIED = re.compile(r"\w+n['’]t\b")
_SAID = re.compile(
    r'\b(?:answer|response|conclusion)\b[^.\n;:]{0,40}?'
    rf"(?:\bis\b|['’]s\b|[:=])\s*({_WORD}|{_CLAUSE})\b"
    r'|\b(?:is|are)\s+(true|false|correct|incorrect)\b'
)
# "no" and "not" in these words deny nothing, …
_EMPTY = re.compile(
    r'\b(?:no|without(?: a)?) (?:doubt|problem|question)\b|\bnot only\b'
)
# … and in these, they state neither.
_UNDECIDED = re.compile(
    r"\b(?:not|n['’]t|\w+n['’]t) (?:\w+ )?(?:sure|certain|clear|know|tell|determine)\b|"
    r"\b(?:cannot|(?:can|could)(?:n['’]t| not)) (?:be )?(?:\w+ )?"
    r'(?:say|said|tell|know|known|determined?|seen?|answer(?:ed)?)\b|'
    r'\b(?:im|not )possible to\b|\bno (?:idea|way to)\b'
)
_EITHER = re.compile(
    r'yes(?:\s+(?:and|or)\s+|\s*[/\n]\s*)no\b|no(?:\s+or\s+|\s*/\s*)yes\b'
)


def read_yes_no(text: str) -> str | None:
    """``'yes'``, ``'no'``, or None if an answer states neither or both.

    Case, markup, quotes and full-width forms are ignored. The rules look, in this
    order, for a part marked as the answer (``<answer>``, ``\\boxed``), the first word
    of the answer, a word declared to be the answer, and the only one of the two words
    that occurs. A negation such as "not" or "isn't" is a no; "I am not sure" is
    neither. Thoughts (``<think>``) do not count. No official rule is as broad; the
    metrics use this function to report how many answers their official rule could not
    read.
    """
    found = {_read(part) for part in explicit_parts(text)} - {None}
    if found:
        return found.pop() if len(found) == 1 else None
    return _read(without_thoughts(text))


def _read(text: str) -> str | None:
    text = _EMPTY.sub('', undecorated(text).lower()).strip()
    undecided = _UNDECIDED.search(text)
    if _EITHER.match(text) or (undecided and not text[: undecided.start()].strip()):
        return None
    first = _FIRST.match(text)
    if first:
        return _MEANING[first[1] or first[2]]
    said = {_MEANING[a or b] for a, b in _SAID.findall(text)}
    if not said and not undecided:
        said = {_MEANING[word] for word in re.findall(rf'\b{_WORD}\b', text)}
        if _DENIED.search(text):
            said.add('no')
    return said.pop() if len(said) == 1 else None
