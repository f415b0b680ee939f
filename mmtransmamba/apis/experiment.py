"""Training one config to its end, once, and what came out of it."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmtransmamba.compat import quiet_logger
from mmtransmamba.visualization import RunScalars, read_scalars

RESULT_FILE = 'result.json'


@dataclass
class ExperimentResult:
    """What one finished run left.

    Attributes:
        work_dir: Where it trained.
        scalars: Its curves.
        parameters: Parameters of the model that remains: the student's under a
            distiller.
        seconds: Wall-clock time of the training, validations included.
    """

    work_dir: Path
    scalars: RunScalars
    parameters: int
    seconds: float


def run_experiment(
    config: str | Path | Config,
    work_dir: str | Path,
    cfg_options: dict[str, Any] | None = None,
) -> ExperimentResult:
    """Train a config, or return the result of the run that finished in ``work_dir``.

    An interrupted run goes on from its last checkpoint. Only warnings are logged to
    the terminal; everything is in the run's log file.

    Args:
        config: Config, or its file.
        work_dir: Folder of this run alone.
        cfg_options: Values that override the config's, by dotted key.

    Raises:
        ValueError: The run that finished in ``work_dir`` had another config.
    """
    work_dir = Path(work_dir)
    cfg = config if isinstance(config, Config) else Config.fromfile(config)
    cfg = cfg.copy()
    cfg.merge_from_dict(cfg_options or {})
    text = cfg.pretty_text
    cfg.work_dir = str(work_dir)

    record_path = work_dir / RESULT_FILE
    if record_path.is_file():
        record = json.loads(record_path.read_text())
        if record.pop('config') != text:
            raise ValueError(
                f'{work_dir} holds the finished run of another config. Choose another '
                'work_dir, or remove this one.'
            )
        return ExperimentResult(
            work_dir,
            RunScalars(**record['scalars']),
            record['parameters'],
            record['seconds'],
        )

    cfg.resume = any(work_dir.glob('*.pth'))
    cfg.log_level = 'WARNING'
    runner = Runner.from_cfg(cfg)
    quiet_logger(runner.logger)
    start = time.perf_counter()
    runner.train()
    seconds = time.perf_counter() - start

    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    model = getattr(model, 'student', model)
    result = ExperimentResult(
        work_dir,
        read_scalars(work_dir),
        sum(p.numel() for p in model.parameters()),
        seconds,
    )
    record = asdict(result) | dict(config=text)
    del record['work_dir']
    record_path.write_text(json.dumps(record))
    return result
