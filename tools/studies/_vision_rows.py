"""The table of finished runs: one line each, written whole or not at all."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path

from _tables import add_rows

RUNS_FILE, SWEEP_FILE = 'runs.csv', 'sweep.csv'
COLUMNS = (
    *('row', 'seed', 'alpha', 'top1', 'seconds', 'parameters', 'curve', 'weights'),
)


@dataclass
class Finished:
    """A finished run.

    Attributes:
        row, seed, alpha: Which one; alpha is None outside the sweep.
        top1: Accuracy on the test images after the last step, in percent.
        curve: Accuracy on the validation images by step.
        weights: The last weight of each layer, by term and layer.
        seconds: Wall-clock time, None of an interrupted run.
        parameters: Those of the student.
    """

    row: str
    seed: int
    alpha: float | None
    top1: float
    curve: dict[int, float] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    seconds: float | None = None
    parameters: int = 0

    @property
    def key(self) -> str:
        """The name of the run, as in the plan."""
        swept = '' if self.alpha is None else f'_alpha{self.alpha}'
        return f'{self.row}{swept}_seed{self.seed}'


def read_rows(path: Path) -> list[Finished]:
    """The finished runs in a table; none without the file.

    Raises:
        ValueError: The file is not such a table.
    """
    if not path.is_file():
        return []
    with path.open(newline='') as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(
                f'"{path}" has the columns {reader.fieldnames}, expected '
                f'{list(COLUMNS)}'
            )
        return [_parse(line) for line in reader]


def add_row(path: Path, finished: Finished) -> None:
    """Add a run to a table, in place of an earlier one of the same name."""
    read_rows(path)  # another table is refused
    row = dict(zip(COLUMNS, _format(finished), strict=True))
    add_rows(path, COLUMNS, row, keys=('row', 'seed', 'alpha'))


def _format(run: Finished) -> list[str]:
    return [
        run.row,
        str(run.seed),
        '' if run.alpha is None else str(run.alpha),
        f'{run.top1:.4f}',
        '' if run.seconds is None else f'{run.seconds:.1f}',
        str(run.parameters),
        ' '.join(f'{step}:{value:.4f}' for step, value in run.curve.items()),
        ' '.join(f'{name}:{value:.4f}' for name, value in run.weights.items()),
    ]


def _pairs(text: str) -> dict[str, float]:
    pairs = (part.rsplit(':', 1) for part in text.split())
    return {name: float(value) for name, value in pairs}


def _parse(line: dict[str, str]) -> Finished:
    return Finished(
        row=line['row'],
        seed=int(line['seed']),
        alpha=float(line['alpha']) if line['alpha'] else None,
        top1=float(line['top1']),
        seconds=float(line['seconds']) if line['seconds'] else None,
        parameters=int(line['parameters']),
        curve={int(step): value for step, value in _pairs(line['curve']).items()},
        weights=_pairs(line['weights']),
    )
