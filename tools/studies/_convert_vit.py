"""The measurements of ``convert_vit.py``."""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from _convert_vit_page import write_page
from _convert_vit_subjects import (
    BATCH,
    CIFAR10,
    IMAGENETTE,
    Subject,
    class_logits,
    read_images,
)
from _convert_vit_trained import measure_trained
from torch import Tensor, nn
from torch.nn import functional as F

import mmtransmamba
from mmtransmamba.models.folders import load_encoder
from mmtransmamba.models.teachers.fingerprints import weights_hash
from mmtransmamba.utils.checkpoint_files import save

MIXERS = ('Mamba2', 'GatedDeltaNet')
INITS = ('mimic', 'calibrate', 'scratch')
RATIOS = (0.25, 0.5, 1.0)
SEED = 0
"""Of every conversion."""
CALIBRATION, FIT_STEPS = 64, 40
"""Training images to which mixers are fitted, and steps of each fit."""
FIELDS = {
    'before': ('mixer', 'init', 'ratio', 'seed', 'images', 'top1', 'agreement', 'kl'),
    'trained': (
        'mixer',
        'ratio',
        'seed',
        'steps',
        'batch',
        'images',
        'stage',
        'top1',
        'agreement',
        'kl',
        'seconds',
    ),
    'latency': ('model', 'pixels', 'milliseconds'),
}


class Table:
    """Rows of a CSV file, written as they are measured.

    Args:
        folder: Folder of the tables.
        name: Name in :data:`FIELDS`.
        prefix: That of the subject.
    """

    def __init__(self, folder: Path, name: str, prefix: str = '') -> None:
        self.path = folder / f'{prefix}{name}.csv'
        self.fields = FIELDS[name]
        self.rows: list[dict[str, str]] = []
        if self.path.is_file():
            with self.path.open(newline='') as file:
                self.rows = list(csv.DictReader(file))

    def has(self, **key: Any) -> bool:
        """Whether there is a row with these values."""
        wanted = {k: _text(v) for k, v in key.items()}
        return any(wanted.items() <= row.items() for row in self.rows)

    def add(self, **row: Any) -> None:
        """Append a row to the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = not self.path.is_file()
        text = {name: _text(value) for name, value in row.items()}
        with self.path.open('a', newline='') as file:
            writer = csv.DictWriter(file, self.fields, lineterminator='\n')
            if new:
                writer.writeheader()
            writer.writerow(text)
        self.rows.append(text)
        print(self.path.name, text, flush=True)


def _text(value: Any) -> str:
    """A value as it stands in a table."""
    return f'{value:.5g}' if isinstance(value, float) else str(value)


class Study:
    """Data and teacher of one subject.

    Args:
        args: The command line.
        subject: The subject.
    """

    def __init__(self, args: argparse.Namespace, subject: Subject) -> None:
        self.args, self.subject = args, subject
        self.count = args.images * subject.times
        data = args.data / subject.images
        self.images, self.labels = read_images(data / subject.test, self.count, subject)
        calibration = CALIBRATION * subject.times
        self.train, _ = read_images(data / subject.train, calibration, subject)
        self.teacher_folder = subject.teacher(args)
        self.teacher = load_encoder(self.teacher_folder).eval()
        self.expected = self.answers(self.teacher)

    def table(self, name: str) -> Table:
        """One of the subject's tables."""
        return Table(self.args.out / 'convert_vit', name, self.subject.prefix)

    def answers(self, model: nn.Module) -> Tensor:
        """A model's logits ``[N, 10]`` for the test images."""
        return class_logits(model, self.images, self.subject)

    def score(self, logits: Tensor) -> dict[str, float]:
        """Accuracy and agreement with the teacher in percent, and divergence."""
        kl = F.kl_div(
            logits.log_softmax(-1),
            self.expected.log_softmax(-1),
            log_target=True,
            reduction='batchmean',
        )
        same = (logits.argmax(-1) == self.expected.argmax(-1)).float().mean()
        return dict(
            top1=100 * float((logits.argmax(-1) == self.labels).float().mean()),
            agreement=100 * float(same),
            kl=float(kl),
        )

    def convert(self, mixer: str, init: str, ratio: float) -> nn.Module:
        """A hybrid before training.

        A mixer is fitted alone, so the fitted mixers of a hybrid with fewer converted
        layers are those of the whole one.
        """
        options = dict(mixer=mixer, ratio=ratio, seed=SEED)
        if init != 'calibrate':
            return mmtransmamba.convert(self.teacher, init=init, **options)[0]
        hybrid, _ = mmtransmamba.convert(self.teacher, init='mimic', **options)
        take_mixers(hybrid, self._fitted(mixer))
        return hybrid

    def _fitted(self, mixer: str) -> dict[str, Tensor]:
        """State dict of the fully converted, calibrated model."""
        # Of this teacher: another one may have been fitted in the same folder.
        teacher = weights_hash(self.teacher)[:8]
        name = f'{self.subject.prefix}{mixer}_{teacher}_fitted.pt'
        file = self.args.work_dir / name
        if not file.is_file():
            hybrid, report = mmtransmamba.convert(
                self.teacher,
                mixer=mixer,
                init='calibrate',
                seed=SEED,
                calibration=self.train.split(BATCH * self.subject.times),
                calibration_steps=FIT_STEPS,
            )
            print(report.proof, flush=True)
            file.parent.mkdir(parents=True, exist_ok=True)
            save(hybrid.state_dict(), file)
        return torch.load(file, weights_only=True)


def take_mixers(hybrid: nn.Module, weights: dict[str, Tensor]) -> None:
    """Give a hybrid the mixers of one with more of them.

    The attention that is left may have weights of the same names as a mixer.

    Args:
        hybrid: The hybrid, changed in place.
        weights: State dict of the other one.
    """
    mixers = tuple(
        f'{hybrid.block_list}.{i}.{hybrid.attention_name}.'
        for i in hybrid.config.mamba_layers
    )
    taken = {n: value for n, value in weights.items() if n.startswith(mixers)}
    hybrid.load_state_dict(hybrid.state_dict() | taken)


def measure_teacher(study: Study) -> None:
    """Accuracy of the teacher, which the page needs with every part."""
    table = study.table('before')
    if not table.has(mixer='teacher', images=study.count):
        table.add(mixer='teacher', images=study.count, **study.score(study.expected))


def measure_before(
    study: Study, inits: Sequence[str], mixers: Sequence[str], ratios: Sequence[float]
) -> None:
    """Accuracy before training."""
    table = study.table('before')
    for init, mixer, ratio in product(inits, mixers, ratios):
        key = dict(mixer=mixer, init=init, ratio=ratio, seed=SEED, images=study.count)
        if not table.has(**key):
            hybrid = study.convert(mixer, init, ratio)
            table.add(**key, **study.score(study.answers(hybrid)))


def measure_latency(study: Study) -> None:
    """Median time of one image on one thread."""
    torch.set_num_threads(1)
    table = study.table('latency')
    models = {'DeiT-Tiny': study.teacher}
    for mixer in MIXERS:
        models[mixer] = study.convert(mixer, 'mimic', 1.0)
    for pixels in (224, 448, 896):
        image = torch.randn(1, 3, pixels, pixels)
        for name, model in models.items():
            if table.has(model=name, pixels=pixels):
                continue
            seconds = []
            with torch.no_grad():
                model(image, interpolate_pos_encoding=True)
                for _ in range(5):
                    start = time.process_time()
                    model(image, interpolate_pos_encoding=True)
                    seconds.append(time.process_time() - start)
            milliseconds = 1000 * sorted(seconds)[len(seconds) // 2]
            table.add(model=name, pixels=pixels, milliseconds=milliseconds)


def study_imagenette(args: argparse.Namespace) -> None:
    """What is missing of DeiT-Tiny's parts."""
    study = Study(args, IMAGENETTE)
    measure_teacher(study)
    if 'before' in args.parts:
        measure_before(study, INITS, MIXERS, RATIOS)
    if 'trained' in args.parts:
        measure_trained(study)
    if 'latency' in args.parts:
        measure_latency(study)


def study_cifar10(args: argparse.Namespace) -> None:
    """What is missing of the part on CIFAR-10."""
    study = Study(args, CIFAR10)
    measure_teacher(study)
    measure_before(study, ('mimic', 'calibrate'), args.mixers, args.ratios)
    measure_trained(study)


def run(args: argparse.Namespace) -> None:
    """Make the measurements that are missing, and write the page."""
    torch.set_num_threads(args.threads)
    if not args.page_only:
        if {'before', 'trained', 'latency'} & set(args.parts):
            study_imagenette(args)
        if 'cifar10' in args.parts:
            study_cifar10(args)
    folder = args.out / 'convert_vit'
    write_page(
        args.out,
        *(
            {name: Table(folder, name, subject.prefix).rows for name in FIELDS}
            for subject in (IMAGENETTE, CIFAR10)
        ),
    )
