"""The measurements of ``convert_vit.py``."""

from __future__ import annotations

import argparse
import csv
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _convert_vit_page import write_page
from _convert_vit_trained import measure_trained
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import mmtransmamba
from mmtransmamba.datasets.imagenette import IMAGENETTE_INDICES
from mmtransmamba.models.folders import load_encoder

MIXERS = ('Mamba2', 'GatedDeltaNet')
INITS = ('mimic', 'calibrate', 'scratch')
RATIOS = (0.25, 0.5, 1.0)
SIZE, BATCH = 224, 8
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
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / f'{name}.csv'
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


def read_images(path: Path, count: int) -> tuple[Tensor, Tensor]:
    """The first images of a shard, enlarged and normalised for DeiT, and their classes.

    Returns:
        ``[N, 3, 224, 224]`` and ``[N]``.
    """
    with np.load(path) as shard:
        jpeg, offsets, labels = (shard[k] for k in ('jpeg', 'offsets', 'labels'))
    pixels = []
    for start, stop in zip(offsets[:count], offsets[1 : count + 1], strict=True):
        with Image.open(io.BytesIO(jpeg[start:stop].tobytes())) as image:
            array = np.array(image.convert('RGB'))
        pixels.append(torch.from_numpy(array).permute(2, 0, 1))
    images = F.interpolate(
        torch.stack(pixels).float(), (SIZE, SIZE), mode='bilinear', antialias=True
    )
    mean, std = (
        torch.tensor(values).view(3, 1, 1)
        for values in ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
    )
    return (images - mean) / std, torch.from_numpy(labels[:count].astype('int64'))


@torch.no_grad()
def class_logits(model: nn.Module, images: Tensor) -> Tensor:
    """Logits ``[N, 10]`` of Imagenette's classes."""
    parts = [model(batch).logits for batch in images.split(BATCH)]
    return torch.cat(parts)[:, list(IMAGENETTE_INDICES)]


class Study:
    """Data and teacher of the study.

    Args:
        args: The command line.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.folder = args.out / 'convert_vit'
        data = args.data / 'imagenette96'
        self.images, self.labels = read_images(data / 'val.npz', args.images)
        self.train, _ = read_images(data / 'train.npz', args.calibration)
        self.teacher = load_encoder(args.data / 'deit_tiny').eval()
        self.expected = class_logits(self.teacher, self.images)

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

    def convert(self, mixer: str, init: str, ratio: float, seed: int) -> nn.Module:
        """A hybrid before training.

        A mixer is fitted alone, so the fitted mixers of a hybrid with fewer converted
        layers are those of the whole one.
        """
        options = dict(mixer=mixer, ratio=ratio, seed=seed)
        if init != 'calibrate':
            return mmtransmamba.convert(self.teacher, init=init, **options)[0]
        hybrid, _ = mmtransmamba.convert(self.teacher, init='mimic', **options)
        take_mixers(hybrid, self._fitted(mixer, seed))
        return hybrid

    def _fitted(self, mixer: str, seed: int) -> dict[str, Tensor]:
        """State dict of the fully converted, calibrated model."""
        file = self.args.work_dir / f'{mixer}_{seed}.pt'
        if not file.is_file():
            hybrid, report = mmtransmamba.convert(
                self.teacher,
                mixer=mixer,
                init='calibrate',
                seed=seed,
                calibration=self.train.split(BATCH),
                calibration_steps=self.args.fit_steps,
            )
            print(report.proof, flush=True)
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.save(hybrid.state_dict(), file)
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


def rows() -> Iterator[tuple[str, str, float]]:
    """Mixer, initialisation and ratio of every row, the cheapest first."""
    for init in ('mimic', 'calibrate', 'scratch'):
        for mixer in MIXERS:
            for ratio in RATIOS:
                yield mixer, init, ratio


def measure_teacher(study: Study) -> None:
    """Accuracy of the teacher, which the page needs with every part."""
    table = Table(study.folder, 'before')
    count = study.args.images
    if not table.has(mixer='teacher', images=count):
        table.add(mixer='teacher', images=count, **study.score(study.expected))


def measure_before(study: Study) -> None:
    """Accuracy before training."""
    table = Table(study.folder, 'before')
    count = study.args.images
    for mixer, init, ratio in rows():
        seed = study.args.seed
        key = dict(mixer=mixer, init=init, ratio=ratio, seed=seed, images=count)
        if table.has(**key):
            continue
        hybrid = study.convert(mixer, init, ratio, seed)
        table.add(**key, **study.score(class_logits(hybrid, study.images)))


def measure_latency(study: Study) -> None:
    """Median time of one image."""
    table = Table(study.folder, 'latency')
    models = {'DeiT-Tiny': study.teacher}
    for mixer in MIXERS:
        models[mixer] = study.convert(mixer, 'mimic', 1.0, study.args.seed)
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


def run(args: argparse.Namespace) -> None:
    """Make the measurements that are missing, and write the page."""
    torch.set_num_threads(args.threads)
    if not args.page_only:
        study = Study(args)
        measure_teacher(study)
        if 'before' in args.parts:
            measure_before(study)
        if 'trained' in args.parts:
            measure_trained(
                study,
                Table(study.folder, 'trained'),
                lambda hybrid: study.score(class_logits(hybrid, study.images)),
            )
        if 'latency' in args.parts:
            measure_latency(study)
    folder = args.out / 'convert_vit'
    write_page(args.out, {name: Table(folder, name).rows for name in FIELDS})
