"""The generated shapes as data sets of mmseg and of mmpretrain."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmpretrain.datasets import BaseDataset
from mmseg.datasets import BaseSegDataset

from mmtransmamba.registry import DATASETS
from projects.segmentation.shapes import CLASSES, PALETTE, draw

# Pictures of different sets never share a random state.
_SETS = {'train': 0, 'val': 1}


def _generator(data_set: int, split: str, index: int) -> np.random.Generator:
    if split not in _SETS:
        raise ValueError(f'split={split!r} must be one of {", ".join(_SETS)}.')
    return np.random.default_rng([data_set, _SETS[split], index])


@DATASETS.register_module()
class ShapeScenes(BaseSegDataset):
    """Scenes of one to three shapes, for segmentation.

    Each sample has ``img``, uint8 ``[size, size, 3]``, and ``gt_seg_map``, uint8
    ``[size, size]``. The same arguments always make the same pictures.

    Args:
        split: ``'train'`` or ``'val'``.
        num_images: Number of pictures.
        size: Side of the pictures in pixels.
        **kwargs: Other arguments of mmseg's ``BaseSegDataset``.

    Raises:
        ValueError: If ``split`` is not one of the above.
    """

    METAINFO = dict(classes=CLASSES, palette=PALETTE)

    def __init__(
        self, split: str, num_images: int, size: int = 64, **kwargs: Any
    ) -> None:
        self.split = split
        self.num_images = num_images
        self.size = size
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        """Draw the pictures."""
        samples = []
        for index in range(self.num_images):
            rng = _generator(0, self.split, index)
            kinds = rng.integers(1, len(CLASSES), rng.integers(1, 4))
            image, labels = draw(kinds.tolist(), rng, self.size)
            samples.append(
                dict(
                    img=image,
                    gt_seg_map=labels,
                    img_shape=labels.shape,
                    ori_shape=labels.shape,
                    seg_fields=['gt_seg_map'],
                    reduce_zero_label=False,
                )
            )
        return samples


@DATASETS.register_module()
class SingleShapes(BaseDataset):
    """Pictures of one shape, for classification.

    Each sample has ``img``, uint8 ``[size, size, 3]``, and ``gt_label``, the class of
    the shape (there is none for the background). The same arguments always make the
    same pictures.

    Args:
        split: ``'train'`` or ``'val'``.
        num_images: Number of pictures.
        size: Side of the pictures in pixels.
        **kwargs: Other arguments of mmpretrain's ``BaseDataset``.

    Raises:
        ValueError: If ``split`` is not one of the above.
    """

    METAINFO = dict(classes=CLASSES[1:])

    def __init__(
        self, split: str, num_images: int, size: int = 64, **kwargs: Any
    ) -> None:
        self.split = split
        self.num_images = num_images
        self.size = size
        super().__init__(ann_file='', **kwargs)

    def load_data_list(self) -> list[dict]:
        """Draw the pictures."""
        samples = []
        for index in range(self.num_images):
            rng = _generator(1, self.split, index)
            label = int(rng.integers(len(CLASSES) - 1))
            image, _ = draw([label + 1], rng, self.size)
            samples.append(dict(img=image, gt_label=label))
        return samples
