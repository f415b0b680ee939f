"""Parts of the report's pages as HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from mmtransmamba.visualization.report.style import CSS

# Nothing is loaded and nothing runs, whatever the run's files contain.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def document(
    title: str,
    kind: str,
    lead: str,
    tiles: Sequence[tuple[str, str]],
    sections: Iterable[tuple[str, str, str]],
    footer: str,
) -> str:
    """A whole page.

    Args:
        title, kind, lead: Heading, the line above it, and the sentence below.
        tiles: Large figures below the heading, each with its name.
        sections: Identifier, heading and HTML of each section.
        footer: HTML of the last lines.
    """
    body = ''.join(
        f'<section aria-labelledby="{name}"><h2 id="{name}">{heading}</h2>{content}'
        '</section>'
        for name, heading, content in sections
    )
    items = ''.join(f'<li><b>{v}</b><span>{escape(n)}</span></li>' for v, n in tiles)
    figures = f'<ul class="tiles">{items}</ul>' if tiles else ''
    title = escape(title)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{title} – report</title><style>{CSS}</style></head>\n<body><main>'
        f'<header><p class="kind">{kind}</p><h1>{title}</h1>'
        f'<p class="lead">{escape(lead)}</p>{figures}</header>{body}'
        f'<footer>{footer}</footer></main></body></html>\n'
    )


def duration(seconds: float) -> str:
    """Seconds in words."""
    if seconds < 90:
        return f'{seconds:.0f} s'
    minutes, rest = divmod(round(seconds), 60)
    hours, left = divmod(minutes, 60)
    return f'{hours} h {left} min' if hours else f'{minutes} min {rest} s'


def large(value: int) -> str:
    """A count with a unit."""
    for unit, size in (('B', 10**9), ('M', 10**6), ('k', 10**3)):
        if value >= size:
            return f'{value / size:.3g} {unit}'
    return str(value)


def none(text: str) -> str:
    """A remark in place of what is missing."""
    return f'<p class="none">{escape(text)}</p>'


def grid(figures: Iterable[str]) -> str:
    """Figures side by side."""
    return f'<div class="grid-of">{"".join(figures)}</div>'


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()
) -> str:
    """A table whose first column names the rows; ``right`` are columns of numbers."""
    right = set(right)

    def cell(tag: str, column: int, text: str, more: str = '') -> str:
        style = ' class="right"' if column in right else ''
        return f'<{tag}{more}{style}>{escape(text)}</{tag}>'

    top = ''.join(cell('th', i, text, ' scope="col"') for i, text in enumerate(head))
    body = ''.join(
        '<tr>'
        + ''.join(
            cell('td' if i else 'th', i, text, '' if i else ' scope="row"')
            for i, text in enumerate(row)
        )
        + '</tr>'
        for row in rows
    )
    return f'<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'
