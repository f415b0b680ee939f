"""Removal of the decoration that models put around answers."""

from __future__ import annotations

import html
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
_TAG = re.compile(
    r'</?[A-Za-z][\w-]*(?:\s[^<>]*)?/?>'
    # Tokens that end a turn or start another one.
    r'|<\|[^<>|\n]{1,40}\|>|\[/?(?:INST|EOS|BOS|PAD)\]|<<?/?SYS>>?'
)
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
    re.compile(r'<(answer|conclusion)>(.*?)(?:</\1>|$)', re.IGNORECASE | re.DOTALL),
    re.compile(r'(<\|begin_of_box\|>)(.*?)(?:<\|end_of_box\|>|$)', re.DOTALL),
    re.compile(r'(\\boxed|\\fbox)\s*\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}'),
)
_THINK = (
    r'(?:think|thinking|thoughts?|reasoning|rationale|reflection|scratchpad|analysis)'
)
_THOUGHTS = (
    # The opening tag may be part of the prompt; the closing one may lie beyond the
    # maximum length.
    re.compile(
        rf'(?:^|[<◁]{_THINK}[>▷])(?:(?![<◁]/{_THINK}).)*[<◁]/{_THINK}[>▷]', re.I | re.S
    ),
    re.compile(rf'^\s*[<◁]{_THINK}[>▷].*', re.I | re.S),
    re.compile(r'<\|channel\|>\s*(?!final)\w+.*?(?=<\|channel\|>\s*final|$)', re.S),
    re.compile(r'<\|channel\|>\s*final\s*(?:<\|message\|>)?'),
)


def without_thoughts(text: str) -> str:
    """Text without the parts in which a model deliberates, complete or not."""
    for pattern in _THOUGHTS:
        text = pattern.sub('', text)
    return text


def explicit_parts(text: str) -> list[str]:
    """The different parts that a response marks as its answer.

    This is the last ``<answer>…</answer>`` (``<conclusion>``, GLM's box), or the last
    ``\\boxed{…}``. If the line of the last one has several, these are all of them.
    Marks within thoughts count only if there are none outside.
    """
    for source in (without_thoughts(text), text):
        for pattern in _EXPLICIT:
            found = list(pattern.finditer(source))
            if found:
                line = source.rfind('\n', 0, found[-1].start())
                parts = (each[2].strip() for each in found if each.start() > line)
                return list(dict.fromkeys(parts))
    return []


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
    text = html.unescape(text).translate(_DRAWN).translate(_INVISIBLE)
    text = unicodedata.normalize('NFKC', text)
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
