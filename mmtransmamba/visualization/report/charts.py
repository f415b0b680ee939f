"""Line charts and heat maps as SVG, with colours from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

Points = Sequence[tuple[int, float]]

COLOURS = 8
_WIDTH, _HEIGHT = 420, 220
_MAP_WIDTH = 560
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 10, 38
_POINTS = 300  # per curve; longer ones keep the minimum and maximum of each stretch
_MARKS = 40  # shorter curves show each point, with its value in a tooltip
_COLUMNS = 48  # of a heat map
_DECADES = 100  # ratio above which an axis is logarithmic


def number(value: float) -> str:
    """A value with at most four digits, for labels and tables."""
    if not math.isfinite(value):
        return 'NaN' if math.isnan(value) else '∞' if value > 0 else '−∞'
    if value == int(value) and abs(value) < 1e7:
        return f'{int(value):,}'.replace('-', '−')
    text = f'{value:.4g}'
    if 'e' in text:
        digits, _, power = text.partition('e')
        text = f'{digits}e{int(power)}'
    return text.replace('-', '−')


def line_chart(
    curves: Mapping[str, Points],
    title: str,
    x_label: str,
    reference: tuple[str, float] | None = None,
    log: bool = False,
) -> str:
    """A figure with one or several curves.

    Non-finite values interrupt a curve and are marked at the bottom.

    Args:
        curves: ``(time, value)`` by label.
        title: Caption.
        x_label: Unit of time.
        reference: Label and value of a horizontal line.
        log: Use a logarithmic axis for positive values that are far apart.
    """
    times = [x for points in curves.values() for x, _ in points]
    finite = [y for points in curves.values() for _, y in points if math.isfinite(y)]
    if not finite:
        return _figure(title, '<p class="none">No finite value.</p>')
    if reference is not None and math.isfinite(reference[1]):
        finite.append(reference[1])
    low, high = min(finite), max(finite)
    log = log and low > 0 and high / low > _DECADES
    ticks = _decades(low, high) if log else _ticks(low, high)
    scale = math.log10 if log else float
    x = _axis(min(times), max(times), _LEFT, _WIDTH - _RIGHT)
    bottom, top = min(low, ticks[0]), max(high, ticks[-1])
    y = _axis(scale(bottom), scale(top), _HEIGHT - _BOTTOM, _TOP)

    parts = []
    for tick in ticks:
        at = y(scale(tick))
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" '
            f'y2="{at:.1f}"/><text x="{_LEFT - 7}" y="{at + 4:.1f}" '
            f'text-anchor="end">{number(tick)}</text>'
        )
    parts += _time_axis(min(times), max(times), x, x_label)
    if reference is not None and math.isfinite(reference[1]):
        at = y(scale(reference[1]))
        parts.append(
            f'<line class="reference" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" '
            f'y1="{at:.1f}" y2="{at:.1f}"/>'
        )
    bad = 0
    for index, (label, points) in enumerate(curves.items()):
        bad += sum(not math.isfinite(value) for _, value in points)
        parts.append(
            _curve(label, points, lambda t: x(t), lambda v: y(scale(v)), index)
        )
    return _figure(
        title,
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(_spoken(curves, x_label))}">{"".join(parts)}</svg>',
        _legend(curves, reference)
        + (f'<p class="bad">× {bad} not finite</p>' if bad else '')
        + ('<p class="none">Logarithmic scale.</p>' if log else ''),
    )


def heat_map(rows: Mapping[str, Points], title: str, neutral: float = 1.0) -> str:
    """A figure with one row of cells per label; time runs to the right.

    Args:
        rows: ``(iteration, value)`` by label. Each cell shows the mean of its stretch.
        title: Caption.
        neutral: Value without a colour; higher and lower values have one colour each.
    """
    steps = sorted({step for points in rows.values() for step, _ in points})
    columns = min(len(steps), _COLUMNS)
    place = {step: i * columns // len(steps) for i, step in enumerate(steps)}
    cells = {label: _means(points, place) for label, points in rows.items()}
    values = [v for row in cells.values() for v in row.values() if math.isfinite(v)]
    if not values:
        return _figure(title, '<p class="none">No finite value.</p>')
    reach = max(max(abs(value - neutral) for value in values), 0.05)
    left, size = 62, 26
    width = (_MAP_WIDTH - left - _RIGHT) / columns
    parts = []
    for row, (label, found) in enumerate(cells.items()):
        top = row * size
        parts.append(
            f'<text x="{left - 8}" y="{top + size / 2 + 4:.0f}" '
            f'text-anchor="end">{escape(label)}</text>'
        )
        for column, value in sorted(found.items()):
            step = next(s for s in steps if place[s] == column)
            share = (value - neutral) / reach
            kind = 'above' if share >= 0 else 'below'
            look = (
                f'class="{kind}" fill-opacity="{abs(share):.2f}"'
                if math.isfinite(value)
                else 'class="nan"'
            )
            parts.append(
                f'<rect x="{left + column * width:.1f}" y="{top + 1}" '
                f'width="{width + 0.3:.1f}" height="{size - 2}" {look}>'
                f'<title>{escape(label)}, iteration {step}: {number(value)}</title>'
                '</rect>'
            )
    foot = len(cells) * size
    parts.append(
        f'<text x="{left}" y="{foot + 16}">{number(steps[0])}</text>'
        f'<text x="{_MAP_WIDTH - _RIGHT}" y="{foot + 16}" text-anchor="end">'
        f'{number(steps[-1])}</text><text x="{(left + _MAP_WIDTH - _RIGHT) / 2:.0f}" '
        f'y="{foot + 16}" text-anchor="middle">iteration</text>'
    )
    scale = (
        '<p class="scale"><span class="below"></span>'
        f'{number(round(min(values), 3))} … <b>{number(neutral)}</b> … '
        f'{number(round(max(values), 3))}<span class="above"></span></p>'
    )
    return _figure(
        title,
        f'<svg viewBox="0 0 {_MAP_WIDTH} {foot + 22}" role="img" '
        f'aria-label="{escape(_spoken(rows, "iteration"))}">{"".join(parts)}</svg>',
        scale,
    )


def _figure(title: str, body: str, below: str = '') -> str:
    caption = f'<figcaption>{escape(title)}</figcaption>'
    return f'<figure>{caption}{body}{below}</figure>'


def _spoken(curves: Mapping[str, Points], x_label: str) -> str:
    """The curves in words, for screen readers."""
    words = []
    for label, points in curves.items():
        (first, begin), (last, end) = points[0], points[-1]
        words.append(
            f'{label}: {number(begin)} at {x_label} {first}, '
            f'{number(end)} at {x_label} {last}'
        )
    return '; '.join(words)


def _legend(
    curves: Mapping[str, Points], reference: tuple[str, float] | None = None
) -> str:
    items = []
    if len(curves) > 1:
        items += [
            f'<li class="s{i % COLOURS}">{escape(label)}</li>'
            for i, label in enumerate(curves)
        ]
    if reference is not None and math.isfinite(reference[1]):
        label = f'{reference[0]}: {number(reference[1])}'
        items.append(f'<li class="dashed">{escape(label)}</li>')
    return f'<ul class="legend">{"".join(items)}</ul>' if items else ''


def _axis(low: float, high: float, begin: float, end: float):
    """A function from values to positions; a single value is placed in the middle."""
    if high == low:
        return lambda value: (begin + end) / 2
    return lambda value: begin + (value - low) / (high - low) * (end - begin)


def _time_axis(first: int, last: int, x, label: str) -> list[str]:
    foot = _HEIGHT - _BOTTOM
    parts = [
        f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{foot}" '
        f'y2="{foot}"/><text x="{(_LEFT + _WIDTH - _RIGHT) / 2:.0f}" '
        f'y="{_HEIGHT - 4}" text-anchor="middle">{escape(label)}</text>'
    ]
    for tick in _ticks(first, last):
        if first <= tick <= last and tick == int(tick):
            parts.append(
                f'<text x="{x(tick):.1f}" y="{foot + 16}" text-anchor="middle">'
                f'{number(tick)}</text>'
            )
    return parts


def _curve(label: str, points: Points, x, y, index: int) -> str:
    steps, parts, pen = [], [], 'M'
    shown = _thin(points)
    for time, value in shown:
        if not math.isfinite(value):
            pen = 'M'
            parts.append(
                f'<text class="bad" x="{x(time):.1f}" '
                f'y="{_HEIGHT - _BOTTOM - 2}" text-anchor="middle">×</text>'
            )
            continue
        steps.append(f'{pen}{x(time):.1f} {y(value):.1f}')
        pen = 'L'
    colour = f's{index % COLOURS}'
    parts.insert(0, f'<path class="{colour}" d="{"".join(steps)}"/>')
    if len(shown) <= _MARKS:
        parts += [
            f'<circle class="{colour}" cx="{x(t):.1f}" cy="{y(v):.1f}" r="2.5">'
            f'<title>{escape(label)}, {t}: {number(v)}</title></circle>'
            for t, v in shown
            if math.isfinite(v)
        ]
    return ''.join(parts)


def _thin(points: Points) -> Points:
    """At most a few hundred points, with all extremes and one non-finite value."""
    if len(points) <= _POINTS:
        return points
    kept = []
    stretch = -(-len(points) * 2 // _POINTS)
    for begin in range(0, len(points), stretch):
        part = points[begin : begin + stretch]
        finite = [point for point in part if math.isfinite(point[1])]
        chosen = {min(finite, key=_value), max(finite, key=_value)} if finite else set()
        chosen |= set([p for p in part if not math.isfinite(p[1])][:1])
        kept += sorted(chosen, key=lambda point: point[0])
    return kept


def _value(point: tuple[int, float]) -> float:
    return point[1]


def _means(points: Points, place: Mapping[int, int]) -> dict[int, float]:
    found: dict[int, list[float]] = {}
    for step, value in points:
        found.setdefault(place[step], []).append(value)
    return {column: sum(v) / len(v) for column, v in found.items()}


def _ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from about ``low`` to about ``high``."""
    if low == high:
        return [low]
    rough = (high - low) / count
    if not 0 < rough < math.inf:
        return [low, high]
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough), 0)
    if step == 0 or max(abs(low), abs(high)) / step > 1e12:
        return [low, high]
    # Slightly exceeding the outer ticks is not a reason for another tick.
    first, last = math.floor(low / step + 0.05), math.ceil(high / step - 0.05)
    digits = 12 - math.floor(math.log10(step))
    return [round(i * step, digits) for i in range(first, last + 1)]


def _decades(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = max(1, (last - first) // 5)
    return [10.0**power for power in range(first, last + 1, every)]
