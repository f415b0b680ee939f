"""Augmented images with what a teacher said of them, computed once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmpretrain.datasets import BaseDataset

from mmtransmamba.registry import DATASETS
from mmtransmamba.utils.checkpoint_files import write
from mmtransmamba.utils.text_files import read_json

RECORD_FILE = 'record.json'


@dataclass
class ViewRecord:
    """The contents of a folder of recorded views.

    For each of N images there are V views. The files are ``labels.npy``, int64
    ``[N]``; ``images.npy``, uint8 ``[N, V, S, S, 3]``, RGB; and the teacher's
    ``logits.npy``, float32 ``[N, V, K]``, ``feature.npy``, float16 ``[N, V, C]``, and
    ``layer_I.npy``, float16 ``[N, V, H, W, C]``, for each recorded layer I.

    Attributes:
        source: What was recorded, so that a folder is not taken for another one.
        classes: The data set's names of its classes.
        images: Number N of images.
        views: Number V of views.
        layers: Teacher layers that are recorded, counted from 0.
        teacher_top1: How many of the views the teacher classifies correctly, in
            percent.
        done: Number of images that are complete.
    """

    source: dict[str, Any]
    classes: list[str]
    images: int
    views: int
    layers: list[int]
    teacher_top1: float = 0.0
    done: int = 0

    def save(self, folder: Path) -> None:
        """Write it whole or not at all."""
        write(folder / RECORD_FILE, json.dumps(asdict(self)).encode())


def read_view_record(folder: str | Path) -> ViewRecord:
    """The description of a folder of recorded views.

    Raises:
        FileNotFoundError: The folder has none.
        ValueError: It is not one.
    """
    path = Path(folder) / RECORD_FILE
    if not path.is_file():
        raise FileNotFoundError(f'"{folder}" holds no recorded views: no {RECORD_FILE}')
    try:
        return ViewRecord(**read_json(path))
    except TypeError as error:
        raise ValueError(f'"{path}" describes no recorded views: {error}') from error


def make_view(
    image: np.ndarray, seed: Sequence[int], scale: tuple[float, float] = (0.35, 1.0)
) -> np.ndarray:
    """A random part of an image, flipped half of the time; the same for equal seeds.

    Args:
        image: uint8 ``[H, W, C]``.
        seed: Integers, for example of the run, the image and the view.
        scale: Range of the part's area, as a fraction of the image's.

    Returns:
        uint8 ``[h, w, C]``, of an aspect ratio between 3:4 and 4:3.
    """
    rng = np.random.default_rng(list(seed))
    height, width = image.shape[:2]
    area = height * width * rng.uniform(*scale)
    ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
    rows = min(height, max(1, round(np.sqrt(area / ratio))))
    columns = min(width, max(1, round(np.sqrt(area * ratio))))
    top = int(rng.integers(height - rows + 1))
    left = int(rng.integers(width - columns + 1))
    view = image[top : top + rows, left : left + columns]
    return view[:, ::-1] if rng.random() < 0.5 else view


def resize_view(view: np.ndarray, side: int) -> np.ndarray:
    """A view as a square, uint8 ``[side, side, C]``."""
    smaller = side * side < view.shape[0] * view.shape[1]
    method = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    return cv2.resize(np.ascontiguousarray(view), (side, side), interpolation=method)


class _MappedArray:
    """An array on disk, of which a copy and a worker have the path, not the content.

    Args:
        path: Its file.
        shape: The beginning of its shape.
    """

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self.path = path
        self.shape = shape
        self._array: np.ndarray | None = _read_array(path, shape)

    def __getitem__(self, place: tuple[int, ...]) -> np.ndarray:
        if self._array is None:
            self._array = _read_array(self.path, self.shape)
        return np.array(self._array[place])

    def __getstate__(self) -> dict[str, Any]:
        return dict(self.__dict__, _array=None)


def _read_array(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """An array on disk whose shape begins with ``shape``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is cut, no array, or of another recording.
    """
    try:
        array = np.load(path, mmap_mode='r')
    except (EOFError, ValueError) as error:
        raise ValueError(
            f'RecordedViews: "{path}" is not a whole array ({error}); record it again'
        ) from error
    if array.shape[: len(shape)] != shape:
        raise ValueError(
            f'RecordedViews: "{path}" has the shape {array.shape}; {shape}, the images '
            f'and views of {RECORD_FILE}, must be its first sizes; record it again'
        )
    return array


@DATASETS.register_module()
class RecordedViews(BaseDataset):
    """Views that :func:`mmtransmamba.apis.recording.record_views` has written.

    Each time an image is read, one of its views is drawn. A sample has ``img``,
    uint8 ``[S, S, 3]`` in RGB order, ``gt_label`` and ``teacher_record``, the
    teacher's arrays by name. With ``meta_keys=('teacher_record',)`` in ``PackInputs``
    a :class:`~mmtransmamba.transfer.distillers.MultiDirectionDistiller` learns from
    them, and its teacher does not run. No later transform may move or mix pixels.

    Args:
        data_root: The folder.
        layers: Recorded teacher layers to give; None gives all of them.
        metainfo: As in mmpretrain's ``BaseDataset``.
        **kwargs: Other arguments of mmpretrain's ``BaseDataset``.

    Raises:
        FileNotFoundError: The folder holds no recorded views.
        ValueError: The recording has not been finished or is damaged, or ``layers``
            names one that is not recorded.
    """

    def __init__(
        self,
        data_root: str,
        layers: Sequence[int] | None = None,
        metainfo: dict | None = None,
        **kwargs: Any,
    ) -> None:
        self.layers = None if layers is None else list(layers)
        super().__init__(
            ann_file='', data_root=str(data_root), metainfo=metainfo, **kwargs
        )

    def load_data_list(self) -> list[dict]:
        """Open the arrays; they are read from disk as samples are drawn."""
        folder = Path(self.data_root).expanduser()
        record = read_view_record(folder)
        if record.done < record.images:
            raise ValueError(
                f'RecordedViews: "{folder}" has {record.done} of {record.images} '
                'images; let the recording finish first'
            )
        layers = record.layers if self.layers is None else self.layers
        unknown = sorted(set(layers) - set(record.layers))
        if unknown:
            raise ValueError(
                f'RecordedViews: layers names {unknown}, recorded in "{folder}" are '
                f'{record.layers}'
            )
        self._metainfo.setdefault('classes', tuple(record.classes))
        self.views = record.views
        each = (record.images, record.views)
        self._images = _MappedArray(folder / 'images.npy', each)
        self._teacher = {
            name: _MappedArray(folder / f'{name}.npy', each)
            for name in ('logits', 'feature', *(f'layer_{i}' for i in layers))
        }
        labels = _read_array(folder / 'labels.npy', each[:1])
        return [{'row': i, 'gt_label': int(y)} for i, y in enumerate(labels)]

    def get_data_info(self, idx: int) -> dict:
        """A sample in one of its views."""
        sample = super().get_data_info(idx)
        place = sample.pop('row'), np.random.randint(self.views)
        sample['img'] = self._images[place]
        sample['teacher_record'] = {
            name: array[place] for name, array in self._teacher.items()
        }
        return sample

    def get_cat_ids(self, idx: int) -> list[int]:
        """The class of a sample, in a list, without reading its image."""
        return [super().get_data_info(idx)['gt_label']]

    def extra_repr(self) -> list[str]:
        """Lines of ``repr(dataset)``."""
        return [f'Folder: \t{self.data_root}']
