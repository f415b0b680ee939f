"""The handwritten digits that ship with scikit-learn."""

from typing import Any

import numpy as np
from mmpretrain.datasets import BaseDataset

from mmtransmamba.registry import DATASETS


@DATASETS.register_module()
class Digits(BaseDataset):
    """1,797 real handwritten digits of 8x8 pixels; needs no download.

    They are the test set of the UCI "Optical Recognition of Handwritten Digits"
    data (E. Alpaydin, C. Kaynak, 1998), in their original order. Samples are sorted by
    writer, so the two splits come from different people.

    Each sample has ``img``, uint8 ``[8, 8, channels]`` on the 0..255 scale (the
    originals have 17 grey levels), and ``gt_label``.

    Args:
        split: ``'train'``, the first 1,200 images, or ``'test'``, the last 597.
        channels: 1, or 3 for models that expect colour images.
        metainfo: As in mmpretrain's ``BaseDataset``.
        **kwargs: Other arguments of mmpretrain's ``BaseDataset``, such as
            ``pipeline`` and ``test_mode``.

    Raises:
        ValueError: If ``split`` or ``channels`` is not one of the above.
    """

    METAINFO = {'classes': tuple('0123456789')}
    SPLITS = {'train': slice(None, 1200), 'test': slice(1200, None)}

    def __init__(
        self,
        split: str = 'train',
        channels: int = 1,
        metainfo: dict | None = None,
        **kwargs: Any,
    ) -> None:
        if split not in self.SPLITS:
            raise ValueError(
                f'Digits: split must be one of {list(self.SPLITS)}, got {split!r}'
            )
        if channels not in (1, 3):
            raise ValueError(f'Digits: channels must be 1 or 3, got {channels!r}')
        self.split = split
        self.channels = channels
        super().__init__(ann_file='', metainfo=metainfo, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Load the images and labels of the split."""
        # scikit-learn takes a second to import. Configs that use only this package's
        # other datasets do not need it.
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
        images = np.repeat(images[..., None], self.channels, axis=-1)
        rows = self.SPLITS[self.split]
        return [
            {'img': img, 'gt_label': int(label)}
            for img, label in zip(images[rows], digits.target[rows], strict=True)
        ]

    def extra_repr(self) -> list[str]:
        """Lines of ``repr(dataset)``."""
        return [f'Split: \t{self.split}']
