"""Removal of the decoration that models put around answers."""

from __future__ import annotations

import re
import unicodedata

# Circled and squared capital letters; some have no compatibility form.
_DRAWN = {
    first + n: f'({chr(65 + n)})'
    for first in (0x24B6, 0x1F110, 0x1F130, 0x1F150, 0x1F170)
    for n in range(26)
}
_INVISIBLE = dict.fromkeys((0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF, 0xFE0F, 0x00AD))
_QUOTES = '"\'`´“”„‟‘’‚‛«»‹›「」『』〈〉《》'
_MARKS = re.escape(_QUOTES + '*_~$#|[](){}<>【】〔〕')
_CJK = '\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af'
_TAG = re.compile(r'</?[A-Za-z][\w-]*(?:\s[^<>]*)?/?>')
_LATEX = re.compile(
    r'\\(?:boxed|fbox|text\w*|math\w+|bf|rm|operatorname)\s*\{([^{}]*)\}'
)
_LETTER_IN_TAG = re.compile(r'<[A-Za-z][\w-]*>\s*([A-Z])\s*</[A-Za-z][\w-]*>')
_LETTER_IN_MARKS = re.compile(rf'(?<![A-Za-z0-9])[{_MARKS}]+ ?([A-Z]) ?[{_MARKS}]+')
_LETTER_IN_CJK = re.compile(
    rf'(?<=[{_CJK}])([A-Z])(?![A-Za-z])|(?<![A-Za-z])([A-Z])(?=[{_CJK}])'
)
_BULLET = re.compile(r'^[ \t]*(?:[-*•>#+]+[ \t]+)+', re.MULTILINE)
_EXPLICIT = (
    re.compile(r'<answer>(.*?)(?:</answer>|$)', re.IGNORECASE | re.DOTALL),
    re.compile(r'\\boxed\s*\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}'),
)
# The opening tag may be part of the prompt.
_THOUGHT = re.compile(
    r'(?:^|<(think|thinking)>)(?:(?!</think).)*</think(?:ing)?>',
    re.IGNORECASE | re.DOTALL,
)


def final_part(text: str) -> str:
    """The part that a response marks as its answer, or all of it except thoughts.

    This is the last ``<answer>…</answer>``, or the last ``\\boxed{…}``. If the line of
    the last one has several, all of them are returned, because they make no choice.
    """
    for pattern in _EXPLICIT:
        found = list(pattern.finditer(text))
        if found:
            line = text.rfind('\n', 0, found[-1].start())
            parts = [each[1] for each in found if each.start() > line]
            return ' or '.join(dict.fromkeys(part.strip() for part in parts))
    return _THOUGHT.sub('', text)


def undecorated(text: str) -> str:
    """Text without markup: compatibility forms, no tags, LaTeX, emphasis or quotes."""
    return _without_marks(_composed(text))


def with_letters_marked(text: str) -> str:
    """As :func:`undecorated`, but a decorated letter becomes ``(A)``.

    ``**A**``, ``"A"``, ``$A$``, ``[A]``, ``\\boxed{A}``, ``<b>A</b>`` and the like are
    not articles.
    """
    text = _LETTER_IN_TAG.sub(r'(\1)', _composed(text))
    text = _LETTER_IN_MARKS.sub(r'(\1)', text)
    text = _LETTER_IN_CJK.sub(lambda found: f'({found[1] or found[2]})', text)
    return _without_marks(text)


def _composed(text: str) -> str:
    text = unicodedata.normalize('NFKC', text.translate(_DRAWN).translate(_INVISIBLE))
    text = text.replace('\r\n', '\n').replace('\r', '\n').replace('。', '.')
    before = None
    while before != text:  # marks may be nested
        before = text
        text = _LATEX.sub(
            lambda found: (
                f'({found[1]})' if re.fullmatch('[A-Z]', found[1]) else found[1]
            ),
            text,
        )
    # Formulas between \( and \), or \[ and \].
    return re.sub(r'\\([()\[\]])', r'\1', text)


def _without_marks(text: str) -> str:
    text = _BULLET.sub('', _TAG.sub('', text))
    # An apostrophe or a bracket within a word is not a mark.
    text = re.sub(r"(?<!\w)['‘’]|['‘’](?!\w)", '', text)
    text = re.sub(r'[*`"´“”„‟«»‹›「」『』$~]', '', text)
    text = re.sub(r'(?<!\w)_+|_+(?!\w)', '', text)
    return text.strip()
