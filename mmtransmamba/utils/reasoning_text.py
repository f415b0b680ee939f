"""Responses in four tagged sections: the tags, the parts, the answer.

TransMamba (§3.4) takes the format from LLaVA-CoT. These are plain functions on text,
shared by the head that generates and the metrics that score.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SECTIONS = ('SUMMARY', 'CAPTION', 'REASONING', 'CONCLUSION')
"""In the order in which a response has them."""

ANSWER_SECTION = 'CONCLUSION'
"""The section that is the answer."""

TAGS = tuple(tag for name in SECTIONS for tag in (f'<{name}>', f'</{name}>'))
"""Opening and closing tag of every section."""

STOP = f'</{ANSWER_SECTION}>'
"""Where a response is complete."""

_TAG = re.compile(rf'<(/?)({"|".join(SECTIONS)})>')


def join_sections(summary: str, caption: str, reasoning: str, conclusion: str) -> str:
    """A response in LLaVA-CoT's format: four sections, with blank lines between."""
    texts = (summary, caption, reasoning, conclusion)
    return '\n\n'.join(
        f'<{name}> {text.strip()} </{name}>'
        for name, text in zip(SECTIONS, texts, strict=True)
    )


@dataclass(frozen=True)
class Section:
    """One section of a response.

    Attributes:
        name: Name of the section.
        text: Its content, without surrounding white space.
        closed: Whether its own closing tag is the next tag.
    """

    name: str
    text: str
    closed: bool


@dataclass(frozen=True)
class Response:
    """The parts of a response; see :func:`parse_response`.

    Attributes:
        sections: In the order of the text, including duplicates.
        outside: Pieces of text that are in no section.
        stray_tags: Closing tags without an opening tag.
        truncated: Whether the text ends within a section or a tag, as a response does
            that has reached its maximum length.
    """

    sections: tuple[Section, ...]
    outside: tuple[str, ...]
    stray_tags: tuple[str, ...]
    truncated: bool

    def all(self, name: str) -> list[Section]:
        """The sections of one name."""
        return [section for section in self.sections if section.name == name]

    def has(self, name: str) -> bool:
        """Whether there is such a section, closed and not empty."""
        return any(section.closed and section.text for section in self.all(name))

    @property
    def tagged(self) -> bool:
        """Whether the text has any tag."""
        return bool(self.sections or self.stray_tags)

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of sections that are absent, even unclosed."""
        return tuple(name for name in SECTIONS if not self.all(name))

    @property
    def duplicates(self) -> tuple[str, ...]:
        """Names of sections that occur more than once."""
        return tuple(name for name in SECTIONS if len(self.all(name)) > 1)

    @property
    def in_order(self) -> bool:
        """Whether all four sections are present and start in order."""
        first = list(dict.fromkeys(section.name for section in self.sections))
        return tuple(first) == SECTIONS

    @property
    def well_formed(self) -> bool:
        """Four sections, each once, in order, closed, not empty; nothing outside
        them."""
        return (
            tuple(section.name for section in self.sections) == SECTIONS
            and all(section.closed and section.text for section in self.sections)
            and not (self.outside or self.stray_tags or self.truncated)
        )


def parse_response(text: str) -> Response:
    """Parse a response, even if it is malformed.

    A section starts at its opening tag and ends at the next tag of any kind, or with
    the text. It is closed if that tag is its closing tag; sections do not nest. Tags
    are written exactly as ``<SUMMARY>``; anything else is text. A tag that is cut off
    at the end of the text does not count as text.
    """
    text, cut = _without_cut_tag(text)
    tags = list(_TAG.finditer(text))
    sections, outside, stray = [], [], []
    opened: str | None = None
    start = 0
    for tag in tags:
        piece = text[start : tag.start()].strip()
        closing, name = bool(tag[1]), tag[2]
        if opened is not None:
            sections.append(Section(opened, piece, closing and name == opened))
        elif piece:
            outside.append(piece)
        if closing and name != opened:
            stray.append(tag[0])
        opened = None if closing else name
        start = tag.end()
    rest = text[start:].strip()
    if opened is not None:
        sections.append(Section(opened, rest, False))
    elif rest:
        outside.append(rest)
    return Response(
        tuple(sections), tuple(outside), tuple(stray), cut or opened is not None
    )


def _without_cut_tag(text: str) -> tuple[str, bool]:
    """The text without a partial tag at its end, and whether there was one."""
    begin = text.rfind('<')
    rest = text[begin:].rstrip() if begin >= 0 else ''
    # A single "<" may be a comparison sign, which is followed by white space.
    if rest and any(tag != rest and tag.startswith(rest) for tag in TAGS):
        if rest != '<' or text.endswith('<'):
            return text[:begin], True
    return text, False


@dataclass(frozen=True)
class Answer:
    """The answer in a response.

    Attributes:
        text: The answer; empty if there is none.
        source: ``'conclusion'``; ``'unclosed'`` for a conclusion without its closing
            tag; ``'text'`` for the whole of a text without tags; ``'none'``.
    """

    text: str
    source: str


def extract_answer(text: str, untagged: str = 'empty') -> Answer:
    """The answer of a response, which is the text of its conclusion.

    The first closed conclusion that is not empty counts, because generation stops
    there. Otherwise, the last unclosed one that is not empty counts: possibly only its
    tag is missing. A response that ends before its conclusion has no answer: no other
    section is searched for one.

    Args:
        text: The response.
        untagged: The answer of a text without tags, such as the output of a model that
            was never trained to reason: ``'empty'``, or ``'text'`` for the whole text.

    Raises:
        ValueError: ``untagged`` has another value.
    """
    if untagged not in ('empty', 'text'):
        raise ValueError(f"untagged={untagged!r} must be 'empty' or 'text'.")
    response = parse_response(text)
    conclusions = [s for s in response.all(ANSWER_SECTION) if s.text]
    for section in conclusions:
        if section.closed:
            return Answer(section.text, 'conclusion')
    if conclusions:
        return Answer(conclusions[-1].text, 'unclosed')
    if untagged == 'text' and not response.tagged and text.strip():
        return Answer(text.strip(), 'text')
    return Answer('', 'none')
