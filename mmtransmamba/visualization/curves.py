"""Curves of training runs, from the scalars that mmengine writes."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from mmtransmamba.visualization.records import (
    LAYER_WEIGHT,
    lower_is_better,
    read_records,
)

RETRIEVAL = 'retrieval/'
TOP1 = 'accuracy/top1'


@dataclass
class RunScalars:
    """Scalars of one run.

    Attributes:
        accuracy: ``(epoch, value)`` of the metric at each validation, in its own unit;
            top-1 in percent by default. For a loop over iterations, the iteration.
        loss: ``(epoch, mean training loss)`` of each epoch with a record. For a loop
            over iterations, the iteration of each record instead of the epoch.
        layer_weights: ``(iteration, weight)`` of each layer, by scalar name.
        retrieval: ``(epoch, value)`` of each validation, by the name of the metric
            of text-video retrieval.
        lower_is_better: Whether lower values of ``accuracy`` are better, as of a
            perplexity.
    """

    accuracy: list[tuple[int, float]] = field(default_factory=list)
    loss: list[tuple[int, float]] = field(default_factory=list)
    layer_weights: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    retrieval: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    lower_is_better: bool = False

    @property
    def best(self) -> float:
        """Best value of a validation."""
        pick = min if self.lower_is_better else max
        return pick(value for _, value in self.accuracy)

    @property
    def final(self) -> float:
        """Value of the last validation."""
        return self.accuracy[-1][1]

    def epochs_to(self, accuracy: float) -> int | None:
        """First validated epoch (or iteration) that reaches it, None if none does."""
        sign = -1 if self.lower_is_better else 1
        reached = (e for e, v in self.accuracy if sign * v >= sign * accuracy)
        return next(reached, None)


def read_scalars(work_dir: str | Path, metric: str = TOP1) -> RunScalars:
    """Read the scalars of a run.

    An interrupted and resumed run has one file per start. If they overlap, the later
    one counts.

    Args:
        work_dir: The run's folder, with ``TIME/vis_data/scalars.json`` in it.
        metric: Name of the scalar that is the accuracy, such as ``mIoU``.

    Raises:
        FileNotFoundError: The run wrote no scalars.
    """
    accuracy: dict[int, float] = {}
    losses: dict[int, dict[int, float]] = defaultdict(dict)
    weights: dict[str, dict[int, float]] = defaultdict(dict)
    retrieval: dict[str, dict[int, float]] = defaultdict(dict)
    records, _ = read_records(work_dir)
    for record in records:
        if metric in record:
            accuracy[record['step']] = record[metric]
        elif 'loss' in record:
            time = record.get('epoch', record['step'])
            losses[time][record['step']] = record['loss']
        for name, value in record.items():
            if name.startswith(LAYER_WEIGHT):
                name = name.removeprefix(LAYER_WEIGHT)
                weights[name][record['step']] = value
            elif name.startswith(RETRIEVAL):
                name = name.removeprefix(RETRIEVAL)
                retrieval[name][record['step']] = value
    return RunScalars(
        accuracy=sorted(accuracy.items()),
        loss=[(e, sum(v.values()) / len(v)) for e, v in sorted(losses.items())],
        layer_weights={name: sorted(v.items()) for name, v in weights.items()},
        retrieval={name: sorted(v.items()) for name, v in retrieval.items()},
        lower_is_better=lower_is_better(metric),
    )


def plot_runs(
    runs: dict[str, RunScalars],
    path: str | Path,
    title: str,
    reference: tuple[str, float] | None = None,
) -> None:
    """Draw accuracy and training loss per epoch of several runs into a PNG.

    Args:
        runs: Runs by the label of their curve. Their epochs should have the same
            length.
        path: The PNG to write.
        title: Title of the figure.
        reference: Label and accuracy, in percent, of a horizontal line.
    """
    pyplot = _pyplot()
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4))
    for label, run in runs.items():
        left.plot(*zip(*run.accuracy, strict=True), label=label)
        right.plot(*zip(*run.loss, strict=True), label=label)
    if reference is not None:
        left.axhline(reference[1], color='0.4', linestyle='--', label=reference[0])
    left.set(xlabel='epoch', ylabel='top-1 accuracy (%)')
    right.set(xlabel='epoch', ylabel="training loss (each run's own total)")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(title)
    _save(figure, path)


def plot_layer_weights(run: RunScalars, path: str | Path) -> None:
    """Draw the adaptive weight of each layer over the iterations into a PNG."""
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(figsize=(6.5, 4))
    for name, points in run.layer_weights.items():
        term, layer = name.rsplit('/', 1)
        axes.plot(*zip(*points, strict=True), label=f'{term}, block {int(layer) + 1}')
    axes.set(xlabel='iteration', ylabel='layer weight', title='Adaptive layer weights')
    axes.axhline(1, color='0.6', linewidth=0.8, linestyle='--')
    axes.grid(alpha=0.3)
    axes.legend()
    _save(figure, path)


def _pyplot():
    """matplotlib's pyplot without a display; imported late because it is slow."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    return pyplot


def _save(figure, path: str | Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    _pyplot().close(figure)
