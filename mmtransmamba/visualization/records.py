"""The scalars that mmengine's visualizer writes, one line per record."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

LAYER_WEIGHT = 'layer_weight/'
_LOWER = re.compile(
    # Losses, shares of what went wrong, and as whole words a distance and ranks.
    'loss|nll|ppl|perplexity|error|malformed|unread|truncated|'
    '(^|_)(kl|mdr|mnr|meanr|medianr)($|_)'
)


def lower_is_better(metric: str) -> bool:
    """Whether lower values of the metric with this name are better."""
    return _LOWER.search(metric.lower().rpartition('/')[2]) is not None


def scalar_files(work_dir: str | Path) -> list[Path]:
    """Files with the scalars of a run, in the order in which they were written.

    An interrupted and resumed run has one file per start. Files of earlier runs in the
    same folder, which the last one does not continue, are left out.
    """
    return _scalar_files(work_dir)[1]


def replaced_runs(work_dir: str | Path) -> list[str]:
    """Start times of the trainings in a folder that its last run does not continue."""
    return [file.parts[-3] for file in _scalar_files(work_dir)[0]]


def _scalar_files(work_dir: str | Path) -> tuple[list[Path], list[Path]]:
    """Files before the start of the last run, and those of this run."""
    files = sorted(Path(work_dir).glob('*/vis_data/scalars.json'))
    begins = [i for i, file in enumerate(files) if _begins_anew(file)]
    begin = max(begins, default=0)
    return files[:begin], files[begin:]


def _begins_anew(file: Path) -> bool:
    """Whether the config beside the scalars says that the run resumes nothing."""
    try:
        text = file.with_name('config.py').read_text('utf-8')
    except (OSError, UnicodeDecodeError):
        return False
    return re.search(r'^resume = False$', text, re.MULTILINE) is not None


def read_records(work_dir: str | Path) -> tuple[list[dict[str, float]], int]:
    """The records of a run, and the number of invalid lines.

    A killed run may end with a partial line, and a full disk may leave arbitrary
    content. Only the numbers of a record are kept, including NaN and infinity;
    ``'step'`` and ``'epoch'`` are integers.

    Args:
        work_dir: The run's folder, with ``TIME/vis_data/scalars.json`` in it.

    Raises:
        FileNotFoundError: The run wrote no scalars.
    """
    paths = scalar_files(work_dir)
    if not paths:
        raise FileNotFoundError(f'No scalars below {work_dir}; has the run trained?')
    records, broken = [], 0
    for path in paths:
        for line in path.read_bytes().decode(errors='replace').split('\n'):
            if line.strip():
                record = _record(line)
                if record is None:
                    broken += 1
                else:
                    records.append(record)
    return records, broken


def _record(line: str) -> dict[str, float] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    record = {}
    for name, value in found.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            if isinstance(value, int) and abs(value) > 1e300:
                return None
            record[name] = value
    for name in ('step', 'epoch'):
        if name in record:
            if not math.isfinite(record[name]):
                return None
            record[name] = int(record[name])
    return record if 'step' in record else None


def is_validation(record: dict[str, float]) -> bool:
    """Whether a loop of validation wrote a record: it has the loop's times.

    Hooks write records of their own, without these.
    """
    return 'data_time' in record and 'lr' not in record


def validation_metrics(work_dir: str | Path) -> list[str]:
    """Names of the metrics that the validations of a run wrote, sorted.

    Raises:
        FileNotFoundError: The run wrote no scalars.
    """
    times = {'step', 'epoch', 'time', 'data_time'}
    records, _ = read_records(work_dir)
    return sorted(
        {
            name
            for record in records
            if is_validation(record)
            for name in record.keys() - times
        }
    )
