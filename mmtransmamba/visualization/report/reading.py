"""Reading of a run's folder as data; nothing in it is executed."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmtransmamba.utils.config_data import read_dumped_config
from mmtransmamba.utils.text_files import TextFileError, read_json, read_text
from mmtransmamba.visualization.curves import read_scalars
from mmtransmamba.visualization.records import (
    LAYER_WEIGHT,
    is_validation,
    lower_is_better,
    read_records,
    replaced_runs,
    scalar_files,
)
from mmtransmamba.visualization.report.environment import (
    log_files,
    logged_environment,
    logged_seconds,
)
from mmtransmamba.visualization.report.inheritance import (
    REPORTS,
    Inheritance,
    read_inheritance,
)
from mmtransmamba.visualization.report.pictures import Picture, read_pictures

Points = list[tuple[int, float]]

TEACHER = 'teacher/'
_NO_METRICS = {'step', 'epoch', 'iter', 'time', 'data_time', 'memory'}
# With fewer epochs than this, curves are drawn over iterations.
_EPOCHS = 5


@dataclass
class Run:
    """A training run, or a conversion of a model. Missing parts are empty or None.

    Attributes:
        work_dir: Its folder.
        title: Name of its config, or of the folder.
        by_epoch: Whether validations are counted in epochs, not in iterations.
        epochs: The last epoch on record.
        iterations: The last iteration on record.
        losses: Training losses by name, over :attr:`train_axis`.
        rates: Learning rates.
        extras: Other scalars of the training.
        train_axis: ``'epoch'`` or ``'iteration'``.
        metrics: Results of each validation, by the metric's name.
        layer_weights: ``(iteration, weight)`` by ``TERM/LAYER``.
        teacher: The teacher's own results, as measured by TeacherCheckHook.
        resumed: Number of times the run was resumed.
        seconds: Wall-clock time.
        parameters: Parameters of the final model.
        inheritance: Account of the inherited weights.
        config: The dumped config as dictionaries, None if it is not plain data.
        config_file: Name of the config's file.
        config_text: Its text.
        pictures: Pictures in the folder.
        environment: From the run's log.
        notes: Parts that could not be read or shown, one sentence each.
    """

    work_dir: Path
    title: str
    by_epoch: bool = True
    epochs: int | None = None
    iterations: int | None = None
    losses: dict[str, Points] = field(default_factory=dict)
    rates: dict[str, Points] = field(default_factory=dict)
    extras: dict[str, Points] = field(default_factory=dict)
    train_axis: str = 'epoch'
    metrics: dict[str, Points] = field(default_factory=dict)
    layer_weights: dict[str, Points] = field(default_factory=dict)
    teacher: dict[str, float] = field(default_factory=dict)
    resumed: int = 0
    seconds: float | None = None
    parameters: int | None = None
    inheritance: list[Inheritance] = field(default_factory=list)
    config: Any = None
    config_file: str = ''
    config_text: str = ''
    pictures: list[Picture] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def best(metric: str, points: Points) -> tuple[int, float] | None:
    """The first ``(time, value)`` with the best value; None if no value is finite."""
    sign = -1 if lower_is_better(metric) else 1
    finite = [point for point in points if math.isfinite(point[1])]
    return max(finite, key=lambda point: sign * point[1], default=None)


def read_run(work_dir: str | Path) -> Run:
    """Read a run's folder, or that of a converted model.

    Missing parts stay empty; damaged parts are listed in the run's notes.

    Raises:
        FileNotFoundError: The folder does not exist, or contains no part of a run.
    """
    work_dir = Path(work_dir)
    if not work_dir.is_dir():
        raise FileNotFoundError(f'There is no folder {work_dir}.')
    earlier = replaced_runs(work_dir)
    logs = [log for log in log_files(work_dir) if log.parent.name not in earlier]
    reports = [work_dir / n for n in REPORTS if (work_dir / n).is_file()]
    configs = sorted(work_dir.glob('*/vis_data/config.py'))
    if not (logs or reports or configs or scalar_files(work_dir)):
        raise FileNotFoundError(
            f'{work_dir} holds no run: there is no TIME/vis_data with scalars.json or '
            f'config.py, no TIME/TIME.log, no {" and no ".join(REPORTS)}.'
        )
    run = Run(work_dir, title=work_dir.resolve().name)
    if earlier:
        run.notes.append(
            f'The last run continues none of {len(earlier)} before it, which are left '
            f'out: {", ".join(earlier)}.'
        )
    _read_config(run, configs)
    _read_scalars(run)
    for path in reports:
        try:
            run.inheritance.append(read_inheritance(path))
        except ValueError as error:
            run.notes.append(f'{error}.')
    if run.inheritance:
        run.parameters = run.inheritance[0].parameters
    if logs:
        run.environment = logged_environment(logs[-1])
        run.seconds = logged_seconds(logs)
    run.resumed = max(len(scalar_files(work_dir)) - 1, 0)
    _read_result(run)
    run.pictures, left = read_pictures(work_dir)
    if left:
        run.notes.append(f'{left} further pictures are too many or too large.')
    return run


def _read_config(run: Run, dumped: list[Path]) -> None:
    own = sorted(run.work_dir.glob('*.py'))
    if len(own) == 1 and own[0].stem != 'experiment':
        run.title = own[0].stem
    path = next(iter([*reversed(dumped), *own, run.work_dir / 'config.json']))
    if not path.is_file():
        return
    run.config_file = path.relative_to(run.work_dir).as_posix()
    try:
        run.config_text = read_text(path)
    except TextFileError as error:
        run.notes.append(f'{error}.')
        return
    if path.suffix == '.py':
        try:
            run.config = read_dumped_config(path).to_dict()
        except (ValueError, TypeError, RecursionError):
            run.notes.append(
                f'{run.config_file} is more than plain values; it is shown as text.'
            )


def _read_scalars(run: Run) -> None:
    try:
        records, broken = read_records(run.work_dir)
    except FileNotFoundError:
        return
    if broken:
        lines = '1 line' if broken == 1 else f'{broken} lines'
        run.notes.append(f'{lines} of scalars.json could not be read.')
    training = [r for r in records if {'iter', 'lr', 'loss'} & r.keys()]
    epochs = {r['epoch'] for r in training if 'epoch' in r}
    run.by_epoch = bool(epochs) or not training
    run.epochs = max(epochs, default=None)
    run.iterations = max((r['step'] for r in training), default=None)
    run.train_axis = 'epoch' if len(epochs) >= _EPOCHS else 'iteration'
    # A later record of the same step, from a resumed run, replaces the earlier one.
    series: dict[str, dict[int, dict[int, float]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    validations: dict[str, dict[int, float]] = defaultdict(dict)
    epoch_of = sorted((r['step'], r['epoch']) for r in training if 'epoch' in r)
    for record in records:
        step = record['step']
        time = step
        if run.train_axis == 'epoch' and 'epoch' in record:
            time = record['epoch']
        elif run.train_axis == 'epoch':
            # Records of hooks have the iteration alone.
            place = bisect_left(epoch_of, (step,))
            time = epoch_of[place][1] if place < len(epoch_of) else run.epochs
        for name, value in record.items():
            if name in _NO_METRICS or name.startswith(LAYER_WEIGHT):
                continue
            if is_validation(record) or name.startswith(TEACHER):
                validations[name][step] = value
            else:
                series[name][time][step] = value
    for name, times in series.items():
        points = [(t, sum(v.values()) / len(v)) for t, v in sorted(times.items())]
        kind = (
            run.losses
            if name.startswith('loss')
            else run.rates
            if name.rpartition('_')[2] == 'lr' or name.startswith('lr')
            else run.extras
        )
        kind[name] = points
    if run.rates.get('base_lr') == run.rates.get('lr'):
        run.rates.pop('base_lr', None)
    for name, values in validations.items():
        points = sorted(values.items())
        if name.startswith(TEACHER):
            run.teacher[name.removeprefix(TEACHER)] = points[-1][1]
        else:
            run.metrics[name] = points
    run.layer_weights = read_scalars(run.work_dir).layer_weights


def _read_result(run: Run) -> None:
    """Parameters and seconds as recorded by :func:`mmtransmamba.train`."""
    path = run.work_dir / 'result.json'
    if not path.is_file():
        return
    try:
        record = read_json(path)
        parameters, seconds = record['parameters'], record['seconds']
    except (ValueError, KeyError, TypeError, RecursionError):
        run.notes.append('result.json could not be read.')
        return
    if type(parameters) is int:
        run.parameters = parameters
    if isinstance(seconds, int | float) and math.isfinite(seconds):
        run.seconds = float(seconds)


def part(config: Any, *keys: str) -> Any:
    """An entry of nested dictionaries, None if it does not exist."""
    for key in keys:
        if not isinstance(config, dict):
            return None
        config = config.get(key)
    return config
