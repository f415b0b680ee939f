"""The gradients of the terms in the runs of ``vision.py``: their table and picture."""

from __future__ import annotations

import csv
import statistics
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from _tables import write_table
from _vision_figures import plot_lines

from mmtransmamba.visualization.records import read_records

PREFIX = 'term_gradient/'
FOLDER = 'gradients'
Series = dict[int, dict[str, float]]
"""Values by step, then by name: ``norm/TERM`` or ``cosine/TERM,TERM``."""


def keep_gradients(work_dir: Path, out: Path, key: str) -> None:
    """Write what ``TermGradientsHook`` logged in a run to ``gradients/KEY.csv``.

    A run without the hook has no such file.
    """
    series: Series = defaultdict(dict)
    for record in read_records(work_dir)[0]:
        for name, value in record.items():
            if name.startswith(PREFIX):
                series[record['step']][name.removeprefix(PREFIX)] = value
    if not series:
        return
    path = out / FOLDER / f'{key}.csv'
    rows = (
        dict(step=step, name=name, value=f'{value:.5g}')
        for step, values in sorted(series.items())
        for name, value in values.items()
    )
    write_table(path, ('step', 'name', 'value'), rows)


def read_gradients(out: Path) -> list[Series]:
    """What :func:`keep_gradients` wrote of each run."""
    found = []
    for path in sorted((out / FOLDER).glob('*.csv')):
        series: Series = defaultdict(dict)
        with path.open(newline='') as file:
            for line in csv.DictReader(file):
                series[int(line['step'])][line['name']] = float(line['value'])
        found.append(series)
    return found


def values_of(runs: list[Series], name: str, steps: Callable = bool) -> list[float]:
    """The values of a name in all runs, at the steps for which ``steps`` is true."""
    return [
        values[name]
        for series in runs
        for step, values in series.items()
        if name in values and steps(step)
    ]


def cosine(one: str, other: str, runs: list[Series]) -> list[float]:
    """Cosines between two terms' gradients, whichever is named first."""
    return values_of(runs, f'cosine/{one},{other}') or values_of(
        runs, f'cosine/{other},{one}'
    )


def gradient_rows(runs: list[Series]) -> list[tuple[str, ...]]:
    """For each term: norms, and agreement with the task and with the logits."""
    last = max(step for series in runs for step in series)
    names = dict.fromkeys(n for series in runs for v in series.values() for n in v)
    terms = [n.removeprefix('norm/') for n in names if n.startswith('norm/')]
    rows = []
    for term in terms:
        early = values_of(runs, f'norm/{term}', lambda step: 3 * step <= last)
        late = values_of(runs, f'norm/{term}', lambda step: 3 * step > 2 * last)
        cells = [f'`{term}`', _mean(early, '.3g'), _mean(late, '.3g')]
        for other in ('task', 'logits'):
            found = cosine(term, other, runs)
            against = [value < 0 for value in found]
            share = f' ({100 * statistics.mean(against):.0f} %)' if found else ''
            cells.append(_mean(found, '+.3f') + share)
        rows.append(tuple(cells))
    return rows


def _mean(values: list[float], form: str) -> str:
    return format(statistics.mean(values), form) if values else '–'


def plot_gradients(runs: list[Series], path: Path) -> None:
    """Norm of each term's gradient, and its cosine with the task's, over the steps."""
    steps = sorted(set.intersection(*(set(series) for series in runs)))
    panels = {}
    for kind, label in (
        ('norm/', "gradient's norm"),
        ('cosine/task,', "cosine with the task's gradient"),
    ):
        names = {n for step in steps for n in runs[0][step] if n.startswith(kind)}
        lines = {}
        for name in sorted(names):
            points = {s: [r[s][name] for r in runs if name in r[s]] for s in steps}
            lines[name.removeprefix(kind)] = {s: v for s, v in points.items() if v}
        panels[label] = lines
    plot_lines(panels, path)
