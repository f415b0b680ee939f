"""Account of the inherited weights, from the saved report of a transfer."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmtransmamba.utils.text_files import read_json

REPORTS = ('subclone_report.json', 'conversion_report.json')
"""Written by the hook SubcloneInitializer, and by a conversion."""

KEPT = 'kept'
_ORDER = ('copied', 'block', 'selected', 'interpolated', 'fresh', KEPT)


@dataclass
class Part:
    """Tensors with the same treatment.

    Attributes:
        name: The action, or the tensors' name with ``*`` for numbers.
        tensors: Number of tensors.
        values: Number of values in them.
        inherited: Number of values that come from the source.
        words: Action, source and taken part, for the detailed table.
    """

    name: str
    tensors: int = 0
    values: int = 0
    inherited: int = 0
    words: tuple[str, ...] = ()

    def add(self, values: int, inherited: int = 0) -> None:
        self.tensors += 1
        self.values += values
        self.inherited += inherited


@dataclass
class Inheritance:
    """The account of one transfer of weights.

    Attributes:
        file: Name of the report's file.
        title: Weight map, layers, width policy and seed.
        actions: Target tensors by action.
        details: Target tensors by name.
        unused: Unused source tensors.
        unused_names: Unused source tensors by name.
        fresh: Target values that a rule initialised.
        kept: Target values that kept the model's own initialisation.
    """

    file: str
    title: str
    actions: list[Part]
    details: list[Part]
    unused: Part
    unused_names: list[Part]
    fresh: int
    kept: int

    @property
    def parameters(self) -> int:
        return sum(part.values for part in self.actions)

    @property
    def inherited(self) -> int:
        return sum(part.inherited for part in self.actions)


def read_inheritance(path: Path) -> Inheritance:
    """Read a report.

    Raises:
        ValueError: The file is not a report.
    """
    try:
        return _summarise(path.name, read_json(path))
    except (
        AttributeError,
        KeyError,
        OverflowError,
        RecursionError,
        TypeError,
    ) as error:
        raise ValueError(f'{path} is not a report of inherited weights') from error


def _summarise(file: str, report: dict[str, Any]) -> Inheritance:
    actions: dict[str, Part] = {}
    details: dict[tuple[str, ...], Part] = {}
    fresh = kept = 0
    for entry in report['entries']:
        size, taken = math.prod(map(int, entry['shape'])), int(entry['inherited'])
        action, rest = str(entry['action']), str(entry.get('rest') or '')
        if rest == KEPT:
            kept += size - taken
        else:
            fresh += size - taken
        words = (
            action,
            _template(entry.get('source')),
            str(entry.get('detail') or ''),
            rest,
        )
        name = _template(entry['target'])
        actions.setdefault(action, Part(action)).add(size, taken)
        details.setdefault((name, *words), Part(name, words=words)).add(size, taken)
    unused = Part('unused')
    names: dict[str, Part] = {}
    for item in report['unused']:
        size, name = math.prod(map(int, item['shape'])), _template(item['name'])
        unused.add(size)
        names.setdefault(name, Part(name)).add(size)
    layers = ', '.join('none' if n is None else str(n) for n in report['layers'])
    return Inheritance(
        file=file,
        title=f'Weight map {report["weight_map"]}; source layers {layers}; width '
        f'{report["width"]}; seed {report["seed"]}',
        actions=sorted(actions.values(), key=_rank),
        details=list(details.values()),
        unused=unused,
        unused_names=list(names.values()),
        fresh=fresh,
        kept=kept,
    )


def _rank(part: Part) -> int:
    return _ORDER.index(part.name) if part.name in _ORDER else len(_ORDER)


def _template(name: Any) -> str:
    """A tensor's name with ``*`` for the numbers of layers."""
    return re.sub(r'(?<=\.)\d+(?=\.)', '*', str(name or ''))
