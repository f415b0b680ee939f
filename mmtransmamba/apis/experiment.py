"""Training one config to its end, once, and what came out of it."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmtransmamba.apis.configs import read_config
from mmtransmamba.engine.student import trained_part
from mmtransmamba.engine.unwrap import unwrapped_model
from mmtransmamba.utils import launch
from mmtransmamba.utils.text_files import read_json
from mmtransmamba.visualization import RunScalars, read_scalars

CONFIG_FILE = 'experiment.py'
RESULT_FILE = 'result.json'


@dataclass
class ExperimentResult:
    """What one finished run left.

    Attributes:
        work_dir: Where it trained.
        scalars: Its curves.
        parameters: Parameters of the model that remains: the student's under a
            distiller.
        seconds: Wall-clock time of the training, validations included; None if the
            run was interrupted.
        tested: Metrics of the test set after the training; None without a test.
    """

    work_dir: Path
    scalars: RunScalars
    parameters: int
    seconds: float | None
    tested: dict[str, float] | None = None


def run_experiment(
    config: str | Path | Config,
    work_dir: str | Path,
    cfg_options: dict[str, Any] | None = None,
    test: bool = False,
) -> ExperimentResult:
    """Train a config, or return the result of the run that finished in ``work_dir``.

    An interrupted run goes on from its last complete checkpoint. Only warnings are
    logged.

    Args:
        config: Config, its file, or its name in the package (see
            :func:`~mmtransmamba.apis.configs.list_models`).
        work_dir: Folder of this run alone.
        cfg_options: Values that override the config's, by dotted key.
        test: Measure the trained model on the config's test set, too.

    Raises:
        ValueError: The run in ``work_dir`` has another config.
    """
    work_dir = Path(work_dir)
    cfg = read_config(config).copy()
    launch.override(cfg, cfg_options)
    _claim(work_dir, cfg.pretty_text)

    result_path = work_dir / RESULT_FILE
    if result_path.is_file():
        record = read_json(result_path)
        scalars = RunScalars(**record.pop('scalars'))
        return ExperimentResult(work_dir=work_dir, scalars=scalars, **record)

    cfg.work_dir = str(work_dir)
    checkpoint = launch.find_resumable(cfg.work_dir)
    cfg.resume = checkpoint is not None
    if checkpoint is not None:
        cfg.load_from = checkpoint
    cfg.log_level = 'WARNING'
    launch.prepare(cfg)
    runner = launch.build_runner(cfg)
    start = time.perf_counter()
    runner.train()
    seconds = time.perf_counter() - start
    tested = runner.test() if test else None

    model = trained_part(unwrapped_model(runner))
    result = ExperimentResult(
        work_dir=work_dir,
        scalars=read_scalars(work_dir),
        parameters=sum(p.numel() for p in model.parameters()),
        seconds=None if cfg.resume else seconds,
        tested=tested,
    )
    record = asdict(result)
    del record['work_dir']
    _write(result_path, json.dumps(record))
    return result


def _claim(work_dir: Path, text: str) -> None:
    """Note the config that a folder is for, or check that it is this one."""
    path = work_dir / CONFIG_FILE
    if not path.is_file():
        work_dir.mkdir(parents=True, exist_ok=True)
        _write(path, text)
    elif path.read_text() != text:
        raise ValueError(
            f'{work_dir} holds the run of another config. Choose another work_dir, or '
            'remove this one.'
        )


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(path.name + '.part')
    part.write_text(text)
    os.replace(part, path)
