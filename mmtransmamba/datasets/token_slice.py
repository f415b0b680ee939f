"""Consecutive samples of another dataset."""

from __future__ import annotations

from typing import Any

from torch.utils.data import Dataset

from mmtransmamba.registry import DATASETS


@DATASETS.register_module()
class Slice(Dataset):
    """The samples from ``start`` up to ``stop`` of another dataset.

    Two slices that do not overlap divide one file into text for training and text that
    is held out.

    Args:
        dataset: The dataset or its config.
        start, stop: First sample, and the one after the last; by default all.

    Raises:
        ValueError: The slice is empty, or exceeds the dataset.
    """

    metainfo: dict = {}

    def __init__(self, dataset: Any, start: int = 0, stop: int | None = None) -> None:
        self.dataset = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
        there = len(self.dataset)
        stop = there if stop is None else stop
        if not 0 <= start < stop <= there:
            raise ValueError(
                f'Slice: start={start} and stop={stop} must enclose a part of the '
                f'{there} samples.'
            )
        self.start, self.stop = start, stop

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(f'sample {index} of {len(self)}')
        return self.dataset[self.start + index]
