"""Recording the outputs of a teacher on a data set once, for many trainings."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmtransmamba.datasets.recorded_views import (
    RECORD_FILE,
    ViewRecord,
    make_view,
    read_view_record,
    resize_view,
)
from mmtransmamba.models.teachers import BaseTeacher
from mmtransmamba.transfer.alignment import resample_tokens
from mmtransmamba.utils.locks import alone_in
from mmtransmamba.utils.recordings import check_same_recording


def record_views(
    dataset: Any,
    teacher: BaseTeacher,
    folder: str | Path,
    source: dict[str, Any],
    size: int,
    teacher_size: int,
    grid: tuple[int, int],
    layers: Sequence[int],
    views: int,
    seed: int = 0,
    on_image: Callable[[int, int], None] | None = None,
) -> ViewRecord:
    """Write views of a data set's images and the teacher's outputs for each.

    An interrupted recording resumes; a finished one is left unchanged.

    Args:
        dataset: Data set of mmengine that yields ``img``, uint8 ``[H, W, 3]``, RGB, and
            ``gt_label`` in ``get_data_info``.
        teacher: Teacher whose logits are those of the data set's classes.
        folder: Folder of the arrays, see :class:`ViewRecord`.
        source: JSON-compatible data that distinguishes this recording from others; the
            sizes and numbers below need not be repeated.
        size: Side of the stored images in pixels.
        teacher_size: Side to which the same views are resized for the teacher.
        grid: Rows and columns to which the teacher's tokens are resampled: those of
            the student.
        layers: Teacher layers to store, counted from 0.
        views: Number of views of each image.
        seed: Random seed of the views.
        on_image: Called with the number of complete images and their total.

    Raises:
        ValueError: ``folder`` holds another recording, the teacher has no logits for
            the data set's classes or no such layers, or a size is below 1.
        BlockingIOError: Another process records there.
    """
    folder = Path(folder)
    classes = list(dataset.metainfo['classes'])
    if teacher.num_classes != len(classes):
        raise ValueError(
            f'record_views: the teacher knows {teacher.num_classes} classes, the data '
            f"set has {len(classes)}; choose from the teacher's (class_order)."
        )
    for name, value in dict(size=size, teacher_size=teacher_size, views=views).items():
        if value < 1:
            raise ValueError(f'record_views: {name}={value} must be at least 1.')
    known = range(len(teacher.layer_dims))
    if wrong := [layer for layer in layers if layer not in known]:
        raise ValueError(
            f'record_views: layers names {wrong}; the teacher has 0 to {known[-1]}.'
        )
    numbers = dict(size=size, teacher_size=teacher_size, grid=list(grid), seed=seed)
    record = ViewRecord(
        # As it is read from the file: with lists in place of tuples.
        source=json.loads(json.dumps(source | numbers)),
        classes=classes,
        images=len(dataset),
        views=views,
        layers=list(layers),
    )
    with alone_in(folder, 'record_views'):
        if (folder / RECORD_FILE).is_file():
            found = read_view_record(folder)
            same = ('source', 'classes', 'images', 'views', 'layers')
            check_same_recording(
                'record_views',
                folder,
                *({n: getattr(r, n) for n in same} for r in (found, record)),
            )
            record = found
        arrays = _arrays(folder, record, teacher, size, grid)
        _fill(arrays, record, folder, dataset, teacher, on_image)
    return record


def _fill(
    arrays: dict[str, np.memmap],
    record: ViewRecord,
    folder: Path,
    dataset: Any,
    teacher: BaseTeacher,
    on_image: Callable[[int, int], None] | None,
) -> None:
    """Record the images that are missing."""
    size, teacher_size, grid, seed = (
        record.source[name] for name in ('size', 'teacher_size', 'grid', 'seed')
    )
    views = record.views
    correct = round(record.teacher_top1 * record.done * views / 100)
    for i in range(record.done, record.images):
        sample = dataset.get_data_info(i)
        cut = [make_view(sample['img'], (seed, i, v)) for v in range(views)]
        shown = np.stack([resize_view(view, teacher_size) for view in cut])
        output = teacher(torch.from_numpy(shown).permute(0, 3, 1, 2))
        arrays['labels'][i] = sample['gt_label']
        arrays['images'][i] = np.stack([resize_view(view, size) for view in cut])
        arrays['logits'][i] = output.logits.numpy()
        arrays['feature'][i] = output.feature.numpy()
        for layer in record.layers:
            found = output.layers[layer]
            tokens = resample_tokens(found.tokens, found.grid, grid)
            arrays[f'layer_{layer}'][i] = tokens.unflatten(1, tuple(grid)).numpy()
        correct += int((output.logits.argmax(1) == sample['gt_label']).sum())
        if (i + 1) % 50 == 0 or i + 1 == record.images:
            for array in arrays.values():
                array.flush()
            record.done = i + 1
            record.teacher_top1 = 100 * correct / ((i + 1) * views)
            record.save(folder)
        if on_image is not None:
            on_image(i + 1, record.images)


def _arrays(
    folder: Path,
    record: ViewRecord,
    teacher: BaseTeacher,
    size: int,
    grid: tuple[int, int],
) -> dict[str, np.memmap]:
    """The files of a recording, open for writing; new files if no image is complete."""
    each = (record.images, record.views)
    shapes: dict[str, tuple[Any, tuple[int, ...]]] = {
        'labels': (np.int64, (record.images,)),
        'images': (np.uint8, (*each, size, size, 3)),
        'logits': (np.float32, (*each, len(record.classes))),
        'feature': (np.float16, (*each, teacher.feature_dim)),
    }
    for i in record.layers:
        width = teacher.layer_dims[i]
        shapes[f'layer_{i}'] = (np.float16, (*each, *grid, width))
    mode = 'r+' if record.done else 'w+'
    return {
        name: np.lib.format.open_memmap(
            folder / f'{name}.npy', mode=mode, dtype=dtype, shape=shape
        )
        for name, (dtype, shape) in shapes.items()
    }
