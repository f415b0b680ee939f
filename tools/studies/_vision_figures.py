"""The pictures of the study of ``vision.py``."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use('Agg')
from matplotlib import pyplot

from mmtransmamba.utils.seed_statistics import mean_and_deviation


def _save(figure: pyplot.Figure, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def plot_accuracies(rows: dict[str, list[float]], path: Path) -> None:
    """Accuracy of each row: its seeds, their mean and standard deviation."""
    figure, axes = pyplot.subplots(figsize=(8, 0.8 + 0.3 * len(rows)))
    for place, values in enumerate(rows.values()):
        mean, spread = mean_and_deviation(values)
        axes.errorbar(mean, place, xerr=spread, fmt='o', color='C0', capsize=3)
        axes.plot(values, [place] * len(values), '|', color='0.4')
        axes.annotate(
            f'n={len(values)}', (1.01, place), xycoords=('axes fraction', 'data')
        )
    axes.set(xlabel='top-1 accuracy (%), mean ± standard deviation over seeds')
    axes.set_yticks(range(len(rows)), list(rows))
    axes.invert_yaxis()
    axes.grid(axis='x', alpha=0.3)
    _save(figure, path)


def plot_curves(rows: dict[str, list[dict[int, float]]], path: Path) -> None:
    """Mean accuracy over the steps with a band of one standard deviation."""
    figure, axes = pyplot.subplots(figsize=(7, 4))
    for label, curves in rows.items():
        if not curves:
            continue
        steps = sorted(set.intersection(*(set(curve) for curve in curves)))
        points = [mean_and_deviation([c[step] for c in curves]) for step in steps]
        low = [mean - spread for mean, spread in points]
        high = [mean + spread for mean, spread in points]
        axes.plot(steps, [p[0] for p in points], label=f'{label} (n={len(curves)})')
        axes.fill_between(steps, low, high, alpha=0.2)
    axes.set(xlabel='step', ylabel='top-1 accuracy (%)')
    axes.grid(alpha=0.3)
    axes.legend()
    _save(figure, path)


def plot_weights(seeds: list[dict[str, float]], path: Path) -> None:
    """The last weight of each layer in each term, with its spread over seeds."""
    figure, axes = pyplot.subplots(figsize=(6.5, 4))
    for term in sorted({name.rsplit('/', 1)[0] for name in seeds[0]}):
        names = [n for n in seeds[0] if n.rsplit('/', 1)[0] == term]
        names.sort(key=lambda name: int(name.rsplit('/', 1)[1]))
        points = [mean_and_deviation([seed[n] for seed in seeds]) for n in names]
        blocks = [int(name.rsplit('/', 1)[1]) + 1 for name in names]
        means, spreads = zip(*points, strict=True)
        axes.errorbar(blocks, means, yerr=spreads, capsize=3, marker='o', label=term)
    axes.axhline(1, color='0.6', linewidth=0.8, linestyle='--')
    axes.set(xlabel='block', ylabel='weight', xticks=blocks)
    axes.grid(alpha=0.3)
    axes.legend()
    _save(figure, path)


def plot_lines(
    panels: dict[str, dict[str, dict[int, list[float]]]], path: Path
) -> None:
    """Means over seeds by step, with their spread: by label of the panel, then name."""
    figure, axes = pyplot.subplots(1, len(panels), figsize=(5.5 * len(panels), 4))
    for panel, (label, lines) in zip(axes, panels.items(), strict=True):
        for name, points in lines.items():
            means, spreads = zip(*map(mean_and_deviation, points.values()), strict=True)
            panel.errorbar(
                list(points), means, yerr=spreads, capsize=2, marker='.', label=name
            )
        panel.axhline(0, color='0.6', linewidth=0.8)
        panel.set(xlabel='step', ylabel=label)
        panel.grid(alpha=0.3)
        panel.legend()
    _save(figure, path)
