"""Imagenette and CIFAR-10 in small: shards of noise, a teacher, its recorded views."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from mmpretrain.datasets.categories import CIFAR10_CATEGORIES
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from mmtransmamba.apis.recording import record_views
from mmtransmamba.datasets import IMAGENETTE_CLASSES, ImagenetteShards
from mmtransmamba.models.teachers import TransformersTeacher

# The teacher's classes are in another order, and there is one more.
TEACHER_CLASSES = ['toucan', *(c.replace(' ', '_') for c in IMAGENETTE_CLASSES[::-1])]
LAYERS = (3, 7, 11)


def encode(image: np.ndarray) -> bytes:
    return cv2.imencode('.jpg', image)[1].tobytes()


def write_shard(path: Path, files: list[bytes], **arrays) -> None:
    """A shard of files whose classes follow each other; None leaves an array out."""
    shard = {
        'jpeg': np.frombuffer(b''.join(files), np.uint8),
        'offsets': np.cumsum([0, *map(len, files)]),
        'labels': np.arange(len(files), dtype=np.uint8) % 10,
        'names': np.array(IMAGENETTE_CLASSES),
        **arrays,
    }
    np.savez(path, **{key: value for key, value in shard.items() if value is not None})


def write_imagenette(folder: Path, images: int = 20) -> None:
    """Both splits, of noise."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split in ('train', 'val'):
        noise = rng.integers(0, 256, (images, 24, 24, 3), dtype=np.uint8)
        write_shard(folder / f'{split}.npz', [encode(image) for image in noise])


def write_cifar10(folder: Path) -> None:
    """Both splits of CIFAR-10, ten images of noise in each file."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ('train_0', 'train_1', 'test'):
        noise = rng.integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)
        write_shard(
            folder / f'{name}.npz',
            [encode(image) for image in noise],
            names=np.array(CIFAR10_CATEGORIES),
        )


def write_teacher(folder: Path) -> None:
    """A ViT as deep as DeiT-Tiny, with random weights and names for its classes."""
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=12,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        id2label=dict(enumerate(TEACHER_CLASSES)),
        label2id={name: i for i, name in enumerate(TEACHER_CLASSES)},
        architectures=['ViTForImageClassification'],
    )
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(image_mean=[0.5] * 3, image_std=[0.5] * 3).save_pretrained(folder)


def build_teacher(folder: Path) -> TransformersTeacher:
    order = [TEACHER_CLASSES.index(c.replace(' ', '_')) for c in IMAGENETTE_CLASSES]
    return TransformersTeacher(str(folder), class_order=order)


def record(data: Path, folder: Path, teacher: TransformersTeacher, **changes):
    """Record two views of each image, of 72 pixels and six by six tokens."""
    arguments = dict(
        dataset=ImagenetteShards(data, 'train'),
        teacher=teacher,
        folder=folder,
        source=dict(dataset='noise'),
        size=72,
        teacher_size=32,
        grid=(6, 6),
        layers=LAYERS,
        views=2,
    )
    return record_views(**(arguments | changes))
