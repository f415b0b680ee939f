"""The part ``trained`` of ``convert_vit.py``: accuracy after each short stage."""

from __future__ import annotations

import time
from itertools import product
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from mmtransmamba.apis.experiment import run_experiment
from mmtransmamba.models.folders import load_encoder

STAGES = ('align', 'tune')
CONFIGS = Path(__file__).resolve().parents[2] / 'configs' / 'quickstart' / 'hybrid_vit'


def stage_config(stage: str, start: Path, study: Any, seed: int) -> Config:
    """The config of a short stage.

    Args:
        stage: Name in :data:`STAGES`.
        start: Folder of the student.
        study: See ``Study`` of ``_convert_vit``.
        seed: Seed of the order and the augmentation.
    """
    args, subject = study.args, study.subject
    cfg = Config.fromfile(CONFIGS / f'{subject.configs}_{stage}.py')
    cfg.model.student.update(path=str(start), convert=None)
    cfg.model.teacher.model = str(study.teacher_folder)
    cfg.train_dataloader.update(batch_size=args.batch, num_workers=0)
    images = cfg.train_dataloader.dataset.dataset
    images.data_root = str(args.data / subject.images)
    # Measured afterwards, on the images of the other parts.
    for name in ('val_dataloader', 'val_evaluator', 'val_cfg'):
        cfg[name] = None
    for name in ('test_dataloader', 'test_evaluator', 'test_cfg'):
        cfg[name] = None
    steps = cfg.train_cfg.max_iters = args.train_steps
    cfg.train_cfg.pop('val_interval')
    cfg.default_hooks.checkpoint.interval = max(1, steps // 4)
    cfg.default_hooks.logger.interval = max(1, steps // 10)
    cfg.randomness = dict(seed=seed)
    return cfg


def measure_trained(study: Any) -> None:
    """Train every mixer and ratio for the seeds, and add a row for each stage.

    Args:
        study: See ``Study`` of ``_convert_vit``.
    """
    args, table = study.args, study.table('trained')
    setting = dict(steps=args.train_steps, batch=args.batch, images=study.count)
    for seed, ratio, mixer in product(args.seeds, args.ratios, args.mixers):
        key = dict(mixer=mixer, ratio=ratio, seed=seed, **setting)
        folder = args.work_dir / (
            f'{study.subject.prefix}{mixer}_{ratio:g}_{seed}_'
            f'{args.train_steps}x{args.batch}'
        )
        missing = [s for s in STAGES if not table.has(stage=s, **key)]
        start = folder / 'start'
        if missing and not start.is_dir():
            hybrid = study.convert(mixer, 'calibrate', ratio)
            hybrid.save_pretrained(folder / 'partial')
            (folder / 'partial').rename(start)
        for stage in STAGES:
            if stage in missing:
                cfg = stage_config(stage, start, study, seed)
                torch.set_num_threads(args.threads)
                begun = (folder / stage).exists()
                begin = time.process_time()
                run_experiment(cfg, folder / stage)
                # What goes on with an earlier command's steps has no time to compare.
                seconds = '' if begun else time.process_time() - begin
                hybrid = load_encoder(folder / stage / 'student').eval()
                found = study.score(study.answers(hybrid))
                table.add(stage=stage, **key, **found, seconds=seconds)
            start = folder / stage / 'student'
        if missing:
            for checkpoint in folder.glob('*/*.pth'):
                checkpoint.unlink()
