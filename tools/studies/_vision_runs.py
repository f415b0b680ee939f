"""What ``vision.py`` does: record the teacher, train what is missing, report."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from _cifar10_weights import cifar10_teacher, require_cifar10_teacher
from _process import call_logged
from _vision_gradients import keep_gradients, read_gradients
from _vision_page import write_page
from _vision_plan import (
    IMAGENETTE,
    RECORDED_LAYERS,
    TRAINING_IMAGES,
    Run,
    config_of,
    plan,
    views_of,
)
from _vision_rows import RUNS_FILE, SWEEP_FILE, Finished, add_row, read_rows
from mmengine.registry import DefaultScope
from safetensors import safe_open

from mmtransmamba.apis.experiment import run_experiment
from mmtransmamba.apis.recording import record_views
from mmtransmamba.datasets import IMAGENETTE_INDICES, ImagenetteShards, Subset
from mmtransmamba.models.teachers import TransformersTeacher
from mmtransmamba.utils.text_files import read_json

IMAGES = 2000
VIEWS = 3
SIZE, TEACHER_SIZE, GRID = 72, 224, (6, 6)
TEACHER_FILE = 'teacher.json'
SHOWN_TO_TEACHER = 500


def record_teacher(args: argparse.Namespace) -> None:
    """Write the views and what the teacher says of them, and what it scores."""
    folder = args.data / 'imagenette96'
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        train = Subset(
            ImagenetteShards(str(folder), 'train', indices=TRAINING_IMAGES),
            IMAGES / TRAINING_IMAGES,
        )
        val = ImagenetteShards(str(folder), 'val', indices=SHOWN_TO_TEACHER)
    teacher = TransformersTeacher(
        str(args.data / 'deit_tiny'),
        input_size=TEACHER_SIZE,
        class_order=IMAGENETTE_INDICES,
    )

    def show(done: int, total: int) -> None:
        if done % 100 == 0 or done == total:
            print(f'teacher: {done} of {total} images', flush=True)

    record = record_views(
        train,
        teacher,
        views_of(args),
        source=dict(dataset='imagenette', teacher='deit_tiny'),
        size=SIZE,
        teacher_size=TEACHER_SIZE,
        grid=GRID,
        layers=RECORDED_LAYERS,
        views=VIEWS,
        on_image=show,
    )
    path = views_of(args) / TEACHER_FILE
    if not path.is_file():
        correct = 0
        for i in range(len(val)):
            sample = val.get_data_info(i)
            image = torch.from_numpy(sample['img']).permute(2, 0, 1)[None]
            correct += int(teacher(image).logits.argmax(1) == sample['gt_label'])
        scores = dict(
            views=len(train) * VIEWS,
            views_top1=record.teacher_top1,
            val_images=len(val),
            val_top1=100 * correct / len(val),
        )
        path.write_text(json.dumps(scores))


def prepare(missing: list[Run], args: argparse.Namespace) -> None:
    """See to the teachers of some runs.

    Raises:
        SystemExit: That of CIFAR-10 has not been trained.
    """
    if any(run.row.data == IMAGENETTE for run in missing):
        record_teacher(args)
    if any(run.row.data != IMAGENETTE and run.row.has_teacher for run in missing):
        require_cifar10_teacher(args.out, 'vision.py')


def rows_file(run: Run, args: argparse.Namespace) -> Path:
    """The table that a run belongs to."""
    return args.out / 'vision' / (RUNS_FILE if run.alpha is None else SWEEP_FILE)


def train(run: Run, args: argparse.Namespace) -> Finished:
    """Train a run, or read what it left."""
    torch.set_num_threads(args.threads)
    result = run_experiment(config_of(run, args), args.work_dir / run.key, test=True)
    if run.alpha is None:
        keep_gradients(result.work_dir, args.out / 'vision', run.key)
    return Finished(
        row=run.row.name,
        seed=run.seed,
        alpha=run.alpha,
        top1=result.tested['accuracy/top1'],
        curve=dict(result.scalars.accuracy),
        weights={n: v[-1][1] for n, v in result.scalars.layer_weights.items()},
        seconds=result.seconds,
        parameters=result.parameters,
    )


def train_in_process(run: Run, args: argparse.Namespace) -> None:
    """Train a run in a process of its own, whose output goes to a log file.

    Raises:
        SystemExit: It failed.
    """
    arguments = ['--one', run.key, '--data', str(args.data)]
    arguments += ['--work-dir', str(args.work_dir), '--out', str(args.out)]
    arguments += ['--threads', str(args.threads), '--seeds', *map(str, args.seeds)]
    call_logged('vision.py', arguments, run.key, args)


def run(args: argparse.Namespace, planned: int) -> None:
    """Those runs of the study that are missing, or one of them.

    Args:
        planned: How many runs the whole study has.
    """
    runs = plan(args.parts, args.seeds)
    if args.one is not None:
        (wanted,) = (r for r in runs if r.key == args.one)
        add_row(rows_file(wanted, args), train(wanted, args))
        return
    missing = [
        r
        for r in runs
        if r.key not in {row.key for row in read_rows(rows_file(r, args))}
    ]
    missing = missing[: args.max_runs]
    if missing:
        args.work_dir.mkdir(parents=True, exist_ok=True)
        prepare(missing, args)
    page(args, planned)
    for number, each in enumerate(missing, 1):
        train_in_process(each, args)
        for checkpoint in (args.work_dir / each.key).glob('*.pth'):
            checkpoint.unlink()
        page(args, planned)
        print(f'{each.key}: done, {number} of {len(missing)}', flush=True)


def page(args: argparse.Namespace, planned: int) -> None:
    """Write the page and its pictures from the rows that there are."""
    path = views_of(args) / TEACHER_FILE
    kept = args.out / 'vision' / TEACHER_FILE
    if path.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(path.read_text())
    write_page(
        args.out,
        read_rows(args.out / 'vision' / RUNS_FILE),
        read_rows(args.out / 'vision' / SWEEP_FILE),
        read_gradients(args.out / 'vision'),
        planned,
        read_json(kept) if kept.is_file() else None,
        cifar10_top1(args),
    )


def cifar10_top1(args: argparse.Namespace) -> float | None:
    """What the teacher on CIFAR-10 scores, None if it has not been trained."""
    path = cifar10_teacher(args.out)
    if not path.is_file():
        return None
    with safe_open(path, 'pt') as file:
        return float(file.metadata()['accuracy/top1'])
