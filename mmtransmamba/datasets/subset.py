"""A deterministic, stratified part of a dataset."""

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
from mmengine.dataset import force_full_init

from mmtransmamba.registry import DATASETS


def stratified_indices(
    labels: Sequence[int], proportion: float, seed: int = 0
) -> list[int]:
    """Choose the same proportion of every class.

    From a class with n samples, ``proportion * n`` are chosen, rounded to the nearest
    integer, but at least one. The choice within a class depends only on the seed and on
    that class. A smaller proportion selects a subset of a larger one, so runs on 10%,
    25%, 50% … of the data compare nested sets.

    Args:
        labels: The class of each sample, ``[N]``.
        proportion: In (0, 1].
        seed: Different seeds choose different samples.

    Returns:
        Indices of the chosen samples, ascending.

    Raises:
        ValueError: If ``proportion`` is not a number in (0, 1].
    """
    if (
        isinstance(proportion, bool)
        or not isinstance(proportion, Real)
        or not 0 < proportion <= 1
    ):
        raise ValueError(f'proportion must be a number in (0, 1], got {proportion!r}')
    labels = np.asarray(labels)
    chosen = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        count = max(1, math.floor(proportion * len(rows) + 0.5))
        rng = np.random.default_rng([seed, int(label)])
        chosen.append(rng.permutation(rows)[:count])
    return np.sort(np.concatenate(chosen)).tolist() if chosen else []


@DATASETS.register_module()
class Subset:
    """A proportion of another dataset, the same for every class.

    Wraps any dataset that provides the class of a sample, through ``get_cat_ids(idx)``
    as mmpretrain's datasets do, or as ``gt_label`` in ``get_data_info(idx)``. See
    :func:`stratified_indices` for the selection.

    Args:
        dataset: The dataset or its config.
        proportion: Fraction of the samples to keep, in (0, 1].
        seed: Different seeds keep different samples.
        lazy_init: Leave the wrapped dataset unloaded until it is needed, as mmengine's
            wrappers do.

    Raises:
        ValueError: If ``proportion`` is not a number in (0, 1], or a sample does not
            have exactly one class.
        TypeError: If the dataset does not provide the class of a sample.
    """

    def __init__(
        self,
        dataset: Any,
        proportion: float,
        seed: int = 0,
        lazy_init: bool = False,
    ) -> None:
        stratified_indices([], proportion)
        self.dataset = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
        self.proportion = proportion
        self.seed = seed
        self._fully_initialized = False
        if not lazy_init:
            self.full_init()

    @property
    def metainfo(self) -> dict:
        """Meta information of the wrapped dataset."""
        return self.dataset.metainfo

    def full_init(self) -> None:
        """Load the wrapped dataset and choose the samples; once."""
        if self._fully_initialized:
            return
        self.dataset.full_init()
        labels = [self._label(idx) for idx in range(len(self.dataset))]
        self.indices = stratified_indices(labels, self.proportion, self.seed)
        self._fully_initialized = True

    def _label(self, idx: int) -> int:
        try:
            label = self.dataset.get_cat_ids(idx)
        except (AttributeError, NotImplementedError):
            # Wrappers such as ConcatDataset lack the method, and mmengine's
            # BaseDataset has one that only raises.
            label = self.dataset.get_data_info(idx).get('gt_label')
        if label is None:
            raise TypeError(
                f'Subset: {type(self.dataset).__name__} has neither get_cat_ids() '
                'nor "gt_label" in its data, so it cannot be stratified by class'
            )
        label = np.asarray(label).reshape(-1)
        if label.size != 1:
            raise ValueError(
                f'Subset: sample {idx} of {type(self.dataset).__name__} has '
                f'{label.size} classes; stratification needs exactly one'
            )
        return int(label[0])

    @force_full_init
    def get_data_info(self, idx: int) -> dict:
        """Annotation of a sample of the subset."""
        return self.dataset.get_data_info(self.indices[idx])

    @force_full_init
    def get_cat_ids(self, idx: int) -> list[int]:
        """The class of a sample of the subset, in a list."""
        return [self._label(self.indices[idx])]

    @force_full_init
    def __getitem__(self, idx: int) -> Any:
        return self.dataset[self.indices[idx]]

    @force_full_init
    def __len__(self) -> int:
        return len(self.indices)
