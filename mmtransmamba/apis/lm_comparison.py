"""Scores of several language models, side by side."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mmtransmamba.evaluation.language import (
    GENERATED,
    TASKS,
    GeneratedTask,
    Task,
    TaskResult,
    relative_recovery,
)
from mmtransmamba.utils.checkpoint_files import write
from mmtransmamba.visualization import plot_by_length, plot_tolerance


@dataclass
class LanguageComparison:
    """Scores of several models; the others are compared with the first.

    Attributes:
        results: Scores by model and benchmark.
        seconds: Evaluation time by model.
    """

    results: dict[str, dict[str, TaskResult]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def average(self, model: str) -> float:
        """Mean of the first metric over the benchmarks, in percent."""
        firsts = [_first(result) for result in self.results[model].values()]
        return 100 * sum(firsts) / len(firsts)

    def recovery(self, model: str) -> float:
        """Mean :func:`relative recovery <relative_recovery>` of the first model.

        Benchmarks on which the first model does not beat guessing are excluded.
        """
        teacher = next(iter(self.results.values()))
        shares = [
            relative_recovery(
                _first(result), _first(teacher[name]), benchmark(name).chance
            )
            for name, result in self.results[model].items()
        ]
        shares = [share for share in shares if not math.isnan(share)]
        return sum(shares) / len(shares) if shares else math.nan

    def win_and_tie(self, model: str) -> float:
        """Share of questions that a model answers correctly if the first model does.

        The share is over all questions of all benchmarks that the first model answers
        correctly.
        """
        teacher = next(iter(self.results.values()))
        kept = [
            own
            for name, result in self.results[model].items()
            for own, other in zip(result.right, teacher[name].right, strict=True)
            if other
        ]
        return sum(kept) / len(kept) if kept else math.nan

    def losses(self, model: str) -> list[float]:
        """Loss against the first model in the first metric of each benchmark."""
        teacher = next(iter(self.results.values()))
        return [
            _first(teacher[name]) - _first(result)
            for name, result in self.results[model].items()
        ]

    def tolerance(self, model: str) -> float:
        r"""Smallest loss with which a model wins or ties in half of the benchmarks.

        :math:`\alpha^*`, the smallest :math:`\alpha \ge 0` for which the student's
        score is at least the teacher's minus :math:`\alpha` in at least half of the
        benchmarks (arXiv:2603.15590), as a share.
        """
        losses = sorted(max(loss, 0.0) for loss in self.losses(model))
        return losses[(len(losses) - 1) // 2]

    def win_and_tie_curve(self, model: str) -> list[tuple[float, float]]:
        """Tolerated loss, and the share of benchmarks without a larger one."""
        losses = sorted(max(loss, 0.0) for loss in self.losses(model))
        steps = sorted({0.0, *losses})
        return [
            (step, sum(loss <= step for loss in losses) / len(losses)) for step in steps
        ]

    def table(self) -> str:
        """The scores as a Markdown table, in percent with standard errors."""
        names = list(self.results)
        lines = [
            f'| Benchmark | Metric | Questions | {" | ".join(names)} |',
            '|' + '---|' * (3 + len(names)),
        ]
        first = self.results[names[0]]
        for task, result in first.items():
            for metric in result.scores:
                cells = [
                    _cell(metric, self.results[name][task].scores[metric])
                    for name in names
                ]
                row = [task, metric, str(result.questions), *cells]
                lines.append(f'| {" | ".join(row)} |')
            for length, scores in result.by_length.items():
                for metric in scores:
                    cells = [
                        _cell(metric, self.results[n][task].by_length[length][metric])
                        for n in names
                    ]
                    row = [f'{task}, {length} {benchmark(task).unit}', metric, '']
                    lines.append(f'| {" | ".join((*row, *cells))} |')
        summary = {
            'mean of the first metrics': [f'{self.average(n):.2f}' for n in names],
            'recovery of the first model': [f'{self.recovery(n):.3f}' for n in names],
            'right where the first is': [f'{self.win_and_tie(n):.3f}' for n in names],
            'loss in half of the benchmarks': [
                f'{100 * self.tolerance(n):.2f}' for n in names
            ],
        }
        lines += [f'| {k} | | | {" | ".join(v)} |' for k, v in summary.items()]
        return '\n'.join(lines)

    def card_rows(self, model: str) -> dict[str, str]:
        """The scores of one model as rows of its card."""
        rows = {}
        for task, result in self.results[model].items():
            for metric, score in result.scores.items():
                percent = '' if metric == 'perplexity' else ' %'
                rows[f'{task}, {metric}'] = (
                    f'{_cell(metric, score)}{percent}, {result.questions} questions'
                )
        return rows

    def save(self, path: str | Path) -> None:
        """Write all scores, and which questions were answered correctly, as JSON."""
        content = {
            model: dict(
                seconds=self.seconds[model],
                tasks={name: asdict(result) for name, result in results.items()},
            )
            for model, results in self.results.items()
        }
        write(path, json.dumps(content, indent=1).encode())

    def save_csv(self, path: str | Path) -> None:
        """Write all scores as CSV: shares, or perplexities, with standard errors."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator='\n')
        writer.writerow(('model', 'benchmark', 'length', 'metric', 'value', 'error'))
        for model, results in self.results.items():
            for task, result in results.items():
                for length, scores in {'': result.scores, **result.by_length}.items():
                    for metric, score in scores.items():
                        values = f'{score.value:.6f}', f'{score.error:.6f}'
                        writer.writerow((model, task, length, metric, *values))
        write(path, text.getvalue().encode())

    def plot(self, folder: str | Path) -> list[Path]:
        """Draw what there is to draw into a folder.

        Returns:
            ``by_length.png``, if a benchmark has questions of several lengths, and
            ``tolerance.png``, if there are several models.
        """
        folder, drawn = Path(folder), []
        folder.mkdir(parents=True, exist_ok=True)
        first = next(iter(self.results.values()))
        names = distinct_names(list(self.results))
        panels = {
            task: (
                benchmark(task).unit,
                benchmark(task).chance,
                {
                    (names[model], metric): [
                        (length, scores[metric].value)
                        for length, scores in results[task].by_length.items()
                    ]
                    for model, results in self.results.items()
                    for metric in ('acc', 'generated')
                },
            )
            for task, result in first.items()
            if len(result.by_length) > 1
        }
        if panels:
            drawn.append(folder / 'by_length.png')
            plot_by_length(panels, drawn[-1])
        others = list(self.results)[1:]
        if others:
            drawn.append(folder / 'tolerance.png')
            plot_tolerance(
                {names[n]: self.win_and_tie_curve(n) for n in others}, drawn[-1]
            )
        return drawn


def distinct_names(paths: Sequence[str]) -> dict[str, str]:
    """The shortest ends of different paths, from one part on, that tell them apart."""
    parts = {path: Path(path).parts for path in paths}
    names = {}
    for path, own in parts.items():
        others = [other for key, other in parts.items() if key != path]
        count = 1
        while count < len(own) and any(o[-count:] == own[-count:] for o in others):
            count += 1
        names[path] = str(Path(*own[-count:]))
    return names


def benchmark(name: str) -> Task | GeneratedTask:
    """A benchmark by its name, official or generated."""
    return TASKS[name] if name in TASKS else GENERATED[name]


def _first(result: TaskResult) -> float:
    return next(iter(result.scores.values())).value


def _cell(metric: str, score: Any) -> str:
    scale = 1 if metric == 'perplexity' else 100
    return f'{scale * score.value:.2f} ± {scale * score.error:.2f}'
