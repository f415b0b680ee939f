"""Report on every tensor in a transfer of weights."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ACTIONS = {
    'copied': 'the whole tensor as it is',
    'block': 'the top-left block both have',
    'selected': 'chosen channels',
    'interpolated': 'resampled to another token grid',
    'fresh': 'begun anew by a stated rule',
    'kept': "the model's own initialisation",
}
KEPT = 'kept'


@dataclass
class Entry:
    """Report on one target tensor.

    Attributes:
        target: Its name.
        shape: Its shape.
        action: A key of :data:`ACTIONS`.
        inherited: Number of its values that come from a source.
        source: Name of the source's tensor, if any.
        source_shape: Its shape.
        detail: The part that was copied, or the reason why none was.
        rest: Initialisation of the other values: ``'kept'`` or a fresh rule.
    """

    target: str
    shape: tuple[int, ...]
    action: str
    inherited: int = 0
    source: str | None = None
    source_shape: tuple[int, ...] | None = None
    detail: str = ''
    rest: str = ''

    @property
    def size(self) -> int:
        size = 1
        for length in self.shape:
            size *= length
        return size


@dataclass
class Unused:
    """A source tensor that was not used at all."""

    name: str
    shape: tuple[int, ...]


@dataclass
class SubcloneReport:
    """The full report on a transfer.

    Attributes:
        weight_map: Name of the map.
        layers: Source layer of each target layer, None where there is none.
        width: Width policy.
        seed: Seed of the fresh parameters.
        entries: One per target tensor.
        unused: Source tensors that were not used at all.
        proof: A dataclass on how near the result is to its source, if measured.
    """

    weight_map: str
    layers: list[int | None]
    width: str
    seed: int
    entries: list[Entry] = field(default_factory=list)
    unused: list[Unused] = field(default_factory=list)
    proof: Any = None

    def totals(self) -> dict[str, int | float]:
        """Numbers of target values by initialisation, and the inherited percentage.

        The copied part of a tensor counts as inherited, and the rest as ``'fresh'`` or
        ``'kept'``.
        """
        total = sum(entry.size for entry in self.entries)
        inherited = sum(entry.inherited for entry in self.entries)
        kept = sum(e.size - e.inherited for e in self.entries if e.rest == KEPT)
        return {
            'parameters': total,
            'inherited': inherited,
            'fresh': total - inherited - kept,
            'kept': kept,
            'inherited_percent': round(100 * inherited / max(total, 1), 2),
        }

    def to_dict(self) -> dict:
        return {**asdict(self), 'totals': self.totals()}

    def save(self, path: str | Path) -> None:
        """Write the report as JSON."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=1) + '\n')

    def __str__(self) -> str:
        """A table with one row for equal entries in successive layers."""
        totals = self.totals()
        rows = [('target', 'action', 'inherited', 'from', 'part or reason', 'rest')]
        rows += _collapse(self.entries)
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            '  '.join(cell.ljust(w) for cell, w in zip(row, widths, strict=True))
            for row in rows
        ]
        lines.insert(1, '-' * len(lines[0]))
        unused = _collapse_names([item.name for item in self.unused])
        return '\n'.join(
            [
                f'Subcloning by {self.weight_map}: layers {self.layers}, '
                f'width {self.width}, seed {self.seed}',
                *(line.rstrip() for line in lines),
                f'{totals["inherited"]:,} of {totals["parameters"]:,} parameters '
                f'inherited ({totals["inherited_percent"]} %), {totals["fresh"]:,} '
                f"fresh, {totals['kept']:,} kept from the model's initialisation",
                f'Unused in the source ({len(self.unused)}): '
                + (', '.join(unused) or 'nothing'),
                *([] if self.proof is None else [str(self.proof)]),
            ]
        )


# The last number, because a stage's number precedes that of its block.
_NUMBER = re.compile(r'(.*\.)?(\d+)(?=\.)')


def _split(name: str | None) -> tuple[str, int | None]:
    """A name with its layer number replaced, and the number."""
    found = _NUMBER.match(name or '')
    if found is None:
        return name or '', None
    return f'{name[: found.start(2)]}*{name[found.end(2) :]}', int(found[2])


def _span(template: str, numbers: Sequence[int | None]) -> str:
    if numbers[0] is None:
        return template
    shown = [str(n) for n in sorted(set(numbers))]
    if len(shown) > 2 and int(shown[-1]) - int(shown[0]) == len(shown) - 1:
        shown = [f'{shown[0]}-{shown[-1]}']
    return template.replace(
        '*', f'[{",".join(shown)}]' if len(numbers) > 1 else shown[0]
    )


def _collapse(entries: Sequence[Entry]) -> list[tuple[str, ...]]:
    groups: dict[tuple, list[tuple[int | None, int | None]]] = {}
    for entry in entries:
        target, layer = _split(entry.target)
        source, source_layer = _split(entry.source)
        percent = f'{100 * entry.inherited / max(entry.size, 1):.0f} %'
        key = (target, entry.action, percent, source, entry.detail, entry.rest)
        groups.setdefault(key, []).append((layer, source_layer))
    return [
        (
            _span(target, [layer for layer, _ in numbers]),
            action,
            percent,
            _span(source, [layer for _, layer in numbers]),
            detail,
            rest,
        )
        for (target, action, percent, source, detail, rest), numbers in groups.items()
    ]


def _collapse_names(names: Sequence[str]) -> list[str]:
    groups: dict[str, list[int | None]] = {}
    for name in names:
        template, layer = _split(name)
        groups.setdefault(template, []).append(layer)
    return [_span(template, numbers) for template, numbers in groups.items()]
