"""The teachers of ``convert_vit.py``, and the images on which they are measured."""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from _cifar10_teacher import CONFIG
from _cifar10_weights import require_cifar10_teacher
from mmengine.registry import DefaultScope
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from mmtransmamba.apis.configs import read_config
from mmtransmamba.datasets.imagenette import IMAGENETTE_INDICES
from mmtransmamba.models.teachers.fingerprints import file_hash
from mmtransmamba.registry import MODELS
from mmtransmamba.transfer.convert import as_transformers

BATCH = 8


@dataclass(frozen=True)
class Subject:
    """A teacher, and the images on which it is measured.

    Attributes:
        prefix: What the names of its tables begin with.
        images: Folder of the images.
        train: Their file for the calibration.
        test: Their file for the measurements.
        size: Side at which the teacher sees them.
        mean: Means with which they are normalised, by channel.
        std: Standard deviations.
        classes: The teacher's number of each class.
        configs: What the names of the stages' configs begin with.
        times: How many times as many images it has as the command line says.
        teacher: Gives the folder of the teacher from the command line.
    """

    prefix: str
    images: str
    train: str
    test: str
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: Sequence[int]
    configs: str
    times: int
    teacher: Callable[[argparse.Namespace], Path]


def deit_folder(args: argparse.Namespace) -> Path:
    """DeiT-Tiny among the data."""
    return args.data / 'deit_tiny'


def cifar10_folder(args: argparse.Namespace) -> Path:
    """The teacher of ``cifar10_teacher.py`` as a folder of transformers.

    Raises:
        SystemExit: It has not been trained.
    """
    file = require_cifar10_teacher(args.out, 'convert_vit.py')
    folder = args.work_dir / f'cifar10_teacher_{file_hash(file)[:8]}'
    if not folder.is_dir():
        weights = load_file(file)
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            model = MODELS.build(read_config(CONFIG).model)
        model.load_state_dict({n: value.float() for n, value in weights.items()})
        partial = folder.with_name('partial')
        as_transformers(model.eval()).save_pretrained(partial)
        partial.rename(folder)
    return folder


IMAGENETTE = Subject(
    prefix='',
    images='imagenette96',
    train='train.npz',
    test='val.npz',
    size=224,
    mean=(123.675, 116.28, 103.53),
    std=(58.395, 57.12, 57.375),
    classes=IMAGENETTE_INDICES,
    configs='deit_half',
    times=1,
    teacher=deit_folder,
)
CIFAR10 = Subject(
    prefix='cifar10_',
    images='cifar10',
    train='train_0.npz',
    test='test.npz',
    size=32,
    mean=(125.307, 122.961, 113.8575),
    std=(51.5865, 50.847, 51.255),
    classes=range(10),
    configs='cifar10_vit',
    times=10,
    teacher=cifar10_folder,
)


def read_images(path: Path, count: int, subject: Subject) -> tuple[Tensor, Tensor]:
    """The first images of a shard as the teacher sees them, and their classes.

    Returns:
        ``[N, 3, size, size]``, normalised, and ``[N]``.

    Raises:
        SystemExit: There are fewer.
    """
    with np.load(path) as shard:
        jpeg, offsets, labels = (shard[k] for k in ('jpeg', 'offsets', 'labels'))
    if count > len(labels):
        raise SystemExit(
            f'convert_vit.py: error: {path} has {len(labels)} images, not {count}; '
            'see --images'
        )
    pixels = []
    for start, stop in zip(offsets[:count], offsets[1 : count + 1], strict=True):
        with Image.open(io.BytesIO(jpeg[start:stop].tobytes())) as image:
            array = np.array(image.convert('RGB'))
        pixels.append(torch.from_numpy(array).permute(2, 0, 1))
    images = F.interpolate(
        torch.stack(pixels).float(),
        (subject.size,) * 2,
        mode='bilinear',
        antialias=True,
    )
    mean, std = (
        torch.tensor(values).view(3, 1, 1) for values in (subject.mean, subject.std)
    )
    return (images - mean) / std, torch.from_numpy(labels[:count].astype('int64'))


@torch.no_grad()
def class_logits(model: nn.Module, images: Tensor, subject: Subject) -> Tensor:
    """Logits ``[N, 10]`` of the classes of the images."""
    parts = [model(batch).logits for batch in images.split(BATCH * subject.times)]
    return torch.cat(parts)[:, list(subject.classes)]
