"""Labelled images from shards of JPEG files."""

import logging
import zipfile
import zlib
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
from mmengine.logging import print_log
from mmpretrain.datasets import BaseDataset

_UNREADABLE = (
    *(KeyError, ValueError, TypeError, EOFError, OSError),
    *(zipfile.BadZipFile, zlib.error),
)
"""What numpy raises for a file that is damaged, or is no shard."""


class ImageShards(BaseDataset):
    """Images stored as JPEG files joined in ``.npz`` shards.

    A shard has the arrays ``jpeg``, uint8, all files concatenated; ``offsets``, int64
    ``[N + 1]``, the start of each file and the end of the last one; ``labels``, uint8
    ``[N]``; and ``names``, the classes.

    The encoded files stay in memory and are decoded when a sample is read. Each
    sample has ``img``, uint8 ``[H, W, 3]`` in RGB order like mmpretrain's
    ``CIFAR10``, and ``gt_label``.

    Every file is decoded once at the start, so corrupt files are left out of the epoch,
    counted and reported before training.

    Args:
        data_root: Folder of the shards.
        split: One of :attr:`SPLITS`.
        max_corrupt: Largest accepted share of corrupt images, in [0, 1).
        metainfo: As in mmpretrain's ``BaseDataset``.
        **kwargs: Other arguments of mmpretrain's ``BaseDataset``.

    Attributes:
        SPLITS: The files of each split.
        num_corrupt: Number of images that were left out.

    Raises:
        ValueError: If ``split`` or ``max_corrupt`` is out of range, a shard is not
            as described, or more than ``max_corrupt`` of the images are corrupt.
        FileNotFoundError: If a shard is missing.
    """

    SPLITS: ClassVar[dict[str, tuple[str, ...]]]

    def __init__(
        self,
        data_root: str,
        split: str = 'train',
        max_corrupt: float = 0.01,
        metainfo: dict | None = None,
        **kwargs: Any,
    ) -> None:
        if split not in self.SPLITS:
            raise ValueError(
                f'{self._name}: split must be one of {list(self.SPLITS)}, got {split!r}'
            )
        if not 0 <= max_corrupt < 1:
            raise ValueError(
                f'{self._name}: max_corrupt must be in [0, 1), got {max_corrupt!r}'
            )
        self.split = split
        self.max_corrupt = max_corrupt
        self.num_corrupt = 0
        super().__init__(
            ann_file='', data_root=str(data_root), metainfo=metainfo, **kwargs
        )

    @property
    def _name(self) -> str:
        return type(self).__name__

    def load_data_list(self) -> list[dict]:
        """Read the shards of the split and leave out files that cannot be decoded."""
        paths = [Path(self.data_root).expanduser() / n for n in self.SPLITS[self.split]]
        samples, corrupt = [], []
        for path in paths:
            for row, (file, label) in enumerate(self._read_shard(path)):
                if _decode(file) is None:
                    corrupt.append(f'{path.name}[{row}]')
                else:
                    samples.append({'jpeg': file, 'gt_label': label})
        self.num_corrupt = len(corrupt)
        if corrupt:
            total = len(samples) + len(corrupt)
            message = (
                f'{self._name}: {len(corrupt)} of {total} images in '
                f'"{self.data_root}" are corrupt, the first ones '
                f'{", ".join(corrupt[:5])}'
            )
            if not samples or len(corrupt) > self.max_corrupt * total:
                raise ValueError(
                    f'{message}; accepted are at most {self.max_corrupt:.2%} '
                    '(max_corrupt)'
                )
            print_log(f'{message}: skipped.', 'current', logging.WARNING)
        return samples

    def _read_shard(self, path: Path) -> list[tuple[bytes, int]]:
        """The encoded files and labels of one shard."""
        if not path.is_file():
            raise FileNotFoundError(f'{self._name}: there is no file "{path}"')
        try:
            with np.load(path) as shard:
                jpeg, offsets, labels, names = (
                    shard[name] for name in ('jpeg', 'offsets', 'labels', 'names')
                )
            jpeg, names = jpeg.tobytes(), names.tolist()
            offsets, labels = list(offsets.tolist()), list(labels.tolist())
        except _UNREADABLE as error:
            raise ValueError(
                f'{self._name}: "{path}" is not a shard with the arrays jpeg, offsets, '
                f'labels and names: {error}'
            ) from error
        if len(offsets) != len(labels) + 1 or offsets[-1] != len(jpeg):
            raise ValueError(
                f'{self._name}: "{path}" has {len(labels)} labels, {len(offsets)} '
                f'offsets ending at {offsets[-1] if offsets else None} and {len(jpeg)} '
                'bytes; N labels need N + 1 offsets ending at the number of bytes'
            )
        expected = list(self.METAINFO['classes'])
        known = range(len(expected))
        if wrong := [label for label in labels if label not in known]:
            raise ValueError(
                f'{self._name}: "{path}" has the label {wrong[0]}; accepted are 0 to '
                f'{known[-1]}'
            )
        if names != expected:
            raise ValueError(
                f'{self._name}: the classes of "{path}" are {names}, expected '
                f'{expected}'
            )
        return [
            (jpeg[start:end], label)
            for start, end, label in zip(offsets, offsets[1:], labels, strict=False)
        ]

    def get_data_info(self, idx: int) -> dict:
        """Decode a sample."""
        sample = super().get_data_info(idx)
        sample['img'] = _decode(sample.pop('jpeg'))
        return sample

    def get_cat_ids(self, idx: int) -> list[int]:
        """The class of a sample, in a list, without decoding its image."""
        return [super().get_data_info(idx)['gt_label']]

    def get_gt_labels(self) -> np.ndarray:
        """The class of every sample, int64 ``[N]``."""
        return np.array([self.get_cat_ids(idx)[0] for idx in range(len(self))])

    def extra_repr(self) -> list[str]:
        """Lines of ``repr(dataset)``."""
        return [f'Split: \t{self.split}', f'Folder: \t{self.data_root}']


def _decode(file: bytes) -> np.ndarray | None:
    """Decode a JPEG file to RGB uint8 ``[H, W, 3]``; None if it is corrupt."""
    # Some decoders fill the missing part of a truncated file with grey; a missing end
    # marker reveals the truncation.
    if not file.endswith(b'\xff\xd9'):
        return None
    image = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
