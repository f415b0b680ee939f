"""Training one config to completion, once, and its results."""

from __future__ import annotations

import copy
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmtransmamba.apis.configs import read_config
from mmtransmamba.engine.run import build_runner
from mmtransmamba.engine.student import trained_part
from mmtransmamba.engine.unwrap import unwrapped_model
from mmtransmamba.utils import launch
from mmtransmamba.utils.checkpoint_files import write
from mmtransmamba.utils.metrics import plain_metrics
from mmtransmamba.utils.text_files import read_json
from mmtransmamba.visualization import TOP1, RunScalars, read_scalars

CONFIG_FILE = 'experiment.py'
RESULT_FILE = 'result.json'


@dataclass
class ExperimentResult:
    """Results of a finished run.

    Attributes:
        work_dir: Folder of the run.
        scalars: Training and validation curves.
        parameters: Parameters of the model that is kept: the student's under a
            distiller.
        seconds: Wall-clock time of the training, validations included; None if the
            run was interrupted.
        tested: Metrics on the test set after training; None without a test.
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
    metric: str = TOP1,
) -> ExperimentResult:
    """Train a config, or return the result of the run that finished in ``work_dir``.

    An interrupted run resumes from its last complete checkpoint. Only warnings are
    logged.

    Args:
        config: Config, its file, or its name in the package (see
            :func:`~mmtransmamba.apis.configs.list_models`).
        work_dir: Folder for this run only.
        cfg_options: Values that override the config's, by dotted key.
        test: Also evaluate the trained model on the config's test set.
        metric: Name of the validation metric that is the curve's accuracy.

    Raises:
        ValueError: The run in ``work_dir`` has another config, or has finished without
            the checkpoint that ``test`` needs; the config has nothing to test, or no
            ``LocalVisBackend``, which records the curves.
    """
    work_dir = Path(work_dir)
    cfg = copy.deepcopy(read_config(config))  # its own copy() shares what is inside
    launch.override(cfg, cfg_options)
    _check(cfg, test)
    _claim(work_dir, cfg.pretty_text)

    result_path = work_dir / RESULT_FILE
    if result_path.is_file():
        record = read_json(result_path)
        # Earlier versions kept a copy of the curves.
        record.pop('scalars', None)
        scalars = read_scalars(work_dir, metric)
        if test and record['tested'] is None:
            record['tested'] = _test(cfg, work_dir)
            write(result_path, json.dumps(record).encode())
        return ExperimentResult(work_dir=work_dir, scalars=scalars, **record)

    cfg.work_dir = str(work_dir)
    checkpoint = launch.last_checkpoint(cfg, work_dir)
    cfg.resume = checkpoint is not None
    if checkpoint is not None:
        cfg.load_from = checkpoint
    cfg.log_level = 'WARNING'
    launch.prepare(cfg)
    runner = build_runner(cfg)
    start = time.perf_counter()
    runner.train()
    seconds = time.perf_counter() - start
    tested = runner.test() if test else None

    model = trained_part(unwrapped_model(runner))
    result = ExperimentResult(
        work_dir=work_dir,
        scalars=read_scalars(work_dir, metric),
        parameters=sum(p.numel() for p in model.parameters()),
        seconds=None if cfg.resume else seconds,
        tested=None if tested is None else plain_metrics(tested),
    )
    record = asdict(result)
    del record['work_dir'], record['scalars']
    write(result_path, json.dumps(record).encode())
    return result


def _check(cfg: Config, test: bool) -> None:
    """Refuse a run whose results could not be read after the training."""
    missing = [key for key in launch.TESTING if cfg.get(key) is None]
    if test and missing:
        raise ValueError(
            f'the config has no {", ".join(missing)}, which test=True needs'
        )
    backends = (cfg.get('visualizer') or {}).get('vis_backends')
    kinds = [backend.get('type') for backend in backends or ()]
    names = [getattr(kind, '__name__', str(kind)) for kind in kinds]
    if backends is not None and not any(n.endswith('LocalVisBackend') for n in names):
        raise ValueError(
            'visualizer.vis_backends has no LocalVisBackend, from whose records the '
            'curves are read; add dict(type="LocalVisBackend")'
        )


def _test(cfg: Config, work_dir: Path) -> dict[str, Any]:
    """Metrics of a finished run on its test set.

    Raises:
        ValueError: It has no checkpoint.
    """
    cfg.load_from = launch.last_checkpoint(cfg, work_dir)
    if cfg.load_from is None:
        raise ValueError(
            f'{work_dir} holds a finished run without a checkpoint, which cannot be '
            'tested; remove it, and train with test=True.'
        )
    cfg.work_dir = str(work_dir / 'test')
    cfg.resume, cfg.log_level = False, 'WARNING'
    launch.prepare(cfg)
    return plain_metrics(build_runner(cfg).test())


def _claim(work_dir: Path, text: str) -> None:
    """Record the config of a folder, or check that it is the same."""
    path = work_dir / CONFIG_FILE
    if not path.is_file():
        write(path, text.encode())
    elif path.read_text() != text:
        raise ValueError(
            f'{work_dir} holds the run of another config. Choose another work_dir, or '
            'remove this one.'
        )
