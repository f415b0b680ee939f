"""The part ``trained`` of ``convert_vit.py``: accuracy after each short stage."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import nn

from mmtransmamba.apis.experiment import run_experiment
from mmtransmamba.models.folders import load_encoder

STAGES = ('align', 'tune')
CONFIGS = Path(__file__).resolve().parents[2] / 'configs' / 'quickstart' / 'hybrid_vit'


def stage_config(
    stage: str, start: Path, data: Path, steps: int, batch: int, seed: int
) -> Config:
    """The config of a short stage.

    Args:
        stage: Name in :data:`STAGES`.
        start: Folder of the student.
        data: Folder with the images and the teacher.
        steps: Length of the stage.
        batch: Images in each step.
        seed: Seed of the order and the augmentation.
    """
    cfg = Config.fromfile(CONFIGS / f'deit_half_{stage}.py')
    cfg.model.student.update(path=str(start), convert=None)
    cfg.model.teacher.model = str(data / 'deit_tiny')
    cfg.train_dataloader.update(batch_size=batch, num_workers=0)
    cfg.train_dataloader.dataset.dataset.data_root = str(data / 'imagenette96')
    # Measured afterwards, on the images of the other parts.
    for name in ('val_dataloader', 'val_evaluator', 'val_cfg'):
        cfg[name] = None
    for name in ('test_dataloader', 'test_evaluator', 'test_cfg'):
        cfg[name] = None
    cfg.train_cfg.max_iters = steps
    cfg.train_cfg.pop('val_interval')
    cfg.default_hooks.checkpoint.interval = max(1, steps // 4)
    cfg.default_hooks.logger.interval = max(1, steps // 10)
    cfg.randomness = dict(seed=seed)
    return cfg


def measure_trained(
    study: Any, table: Any, score: Callable[[nn.Module], dict[str, float]]
) -> None:
    """Train every mixer and ratio for the seeds, and add a row for each stage.

    Args:
        study: See ``Study`` of ``_convert_vit``.
        table: Gets the rows; those that it has are not measured again.
        score: Function that measures a hybrid.
    """
    args = study.args
    setting = dict(steps=args.train_steps, batch=args.batch, images=args.images)
    for seed in args.seeds:
        for ratio in args.ratios:
            for mixer in args.mixers:
                key = dict(mixer=mixer, ratio=ratio, seed=seed, **setting)
                folder = args.work_dir / (
                    f'{mixer}_{ratio:g}_{seed}_{args.train_steps}x{args.batch}'
                )
                missing = [s for s in STAGES if not table.has(stage=s, **key)]
                start = folder / 'start'
                if missing and not start.is_dir():
                    hybrid = study.convert(mixer, 'calibrate', ratio, args.seed)
                    hybrid.save_pretrained(folder / 'partial')
                    (folder / 'partial').rename(start)
                for stage in STAGES:
                    if stage in missing:
                        cfg = stage_config(
                            stage, start, args.data, args.train_steps, args.batch, seed
                        )
                        torch.set_num_threads(args.threads)
                        begin = time.process_time()
                        run_experiment(cfg, folder / stage)
                        seconds = time.process_time() - begin
                        found = score(load_encoder(folder / stage / 'student').eval())
                        table.add(stage=stage, **key, **found, seconds=seconds)
                    start = folder / stage / 'student'
                if missing:
                    for checkpoint in folder.glob('*/*.pth'):
                        checkpoint.unlink()
