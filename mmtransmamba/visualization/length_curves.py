"""Curves of scores over the length of a question, and over a tolerance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mmtransmamba.visualization.curves import _pyplot, _save

Points = Sequence[tuple[float, float]]
STYLES = {'acc': '-', 'generated': '--'}


def plot_by_length(
    panels: Mapping[str, tuple[str, float, Mapping[tuple[str, str], Points]]],
    path: str | Path,
) -> None:
    """Draw scores by length into a PNG, one panel for each benchmark.

    Args:
        panels: By benchmark: the unit of the length, the score of guessing, and the
            curves by model and metric; scores are shares from 0 to 1.
        path: The PNG to write.
    """
    pyplot = _pyplot()
    figure, all_axes = pyplot.subplots(
        1, len(panels), figsize=(4.2 * len(panels), 3.8), squeeze=False
    )
    for axes, (name, (unit, chance, curves)) in zip(
        all_axes[0], panels.items(), strict=True
    ):
        models = list(dict.fromkeys(model for model, _ in curves))
        for (model, metric), points in curves.items():
            lengths, scores = zip(*points, strict=True)
            axes.plot(
                lengths,
                [100 * score for score in scores],
                STYLES[metric],
                color=f'C{models.index(model) % 10}',
                marker='o',
                label=f'{model}, {metric}',
            )
        axes.axhline(100 * chance, color='0.6', linewidth=0.8, label='guessing')
        axes.set_xscale('log', base=2)
        axes.set(title=name, xlabel=unit, ylabel='correct (%)', ylim=(-4, 104))
        axes.grid(alpha=0.3)
        axes.legend(fontsize='x-small')
    _save(figure, path)


def plot_tolerance(curves: Mapping[str, Points], path: str | Path) -> None:
    """Draw the share of benchmarks without a loss over the tolerated loss into a PNG.

    Args:
        curves: By model: tolerated loss and share of benchmarks, from 0 to 1.
        path: The PNG to write.
    """
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(figsize=(6, 4))
    for model, points in curves.items():
        losses, shares = zip(*points, strict=True)
        axes.step(
            [100 * loss for loss in losses],
            [100 * share for share in shares],
            where='post',
            label=model,
        )
    axes.set(xlabel='tolerated loss (points)', ylabel='benchmarks won or tied (%)')
    axes.grid(alpha=0.3)
    axes.legend()
    _save(figure, path)
