"""A sampler that groups similar samples into batches."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

from mmtransmamba.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class LengthGroupedSampler(Sampler):
    """Batches of samples of similar length, all with images or all without.

    As in LLaVA's training, samples with and without images are shuffled separately and
    cut into batches for all processes together. Each of these is sorted by length and
    distributed so that all processes have about as many words. Then the order of the
    batches is shuffled. This keeps padding small, and a model's projector is used
    either by all processes or by none.

    Unlike in LLaVA, the last batch of each kind is filled with samples of the same kind
    instead of a mixture.

    Args:
        dataset: With ``lengths()`` and ``with_image()`` as
            :class:`~mmtransmamba.datasets.conversations.ConversationDataset` has.
        batch_size: Batch size of the dataloader.
        seed: Must be equal in all processes; by default they agree on one.

    Raises:
        ValueError: ``batch_size`` is not positive, or the dataset has no lengths or no
            samples.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        seed: int | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(
                f'LengthGroupedSampler: batch_size={batch_size} is not positive.'
            )
        if not (hasattr(dataset, 'lengths') and hasattr(dataset, 'with_image')):
            raise ValueError(
                f'LengthGroupedSampler: {type(dataset).__name__} has no lengths() and '
                'with_image(), by which it groups samples.'
            )
        self.rank, self.world_size = get_dist_info()
        self.batch_size = batch_size
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0
        self._passed = 0  # epochs before those counted by ``epoch``
        self._start = 0
        self.lengths = np.asarray(dataset.lengths())
        image = np.asarray(dataset.with_image(), bool)
        self.kinds = [
            k for k in (np.flatnonzero(image), np.flatnonzero(~image)) if len(k)
        ]
        together = batch_size * self.world_size
        if not self.kinds:
            raise ValueError('LengthGroupedSampler: the dataset has no samples.')
        batches = sum(math.ceil(len(kind) / together) for kind in self.kinds)
        self.num_samples = batches * batch_size

    def __len__(self) -> int:
        """Number of samples of one process in an epoch."""
        return self.num_samples

    def __iter__(self) -> Iterator[int]:
        order = self._order(self.epoch + self._passed)
        start, self._start = self._start, 0
        return iter(order[start:].tolist())

    def set_epoch(self, epoch: int) -> None:
        """Select the order of an epoch; each epoch has a different one."""
        self.epoch = epoch

    def skip(self, num_samples: int) -> None:
        """Start after this many samples of this process, counted over all epochs.

        mmengine's iteration-based loop calls this to resume.
        """
        self._passed, self._start = divmod(num_samples, self.num_samples)

    def _order(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, epoch])
        together = self.batch_size * self.world_size
        batches = []
        for kind in self.kinds:
            order = rng.permutation(kind)
            whole = math.ceil(len(order) / together)
            batches.append(np.resize(order, (whole, together)))
        chosen = rng.permutation(np.concatenate(batches))
        if self.world_size == 1:
            return chosen.ravel()
        return np.concatenate(
            [deal(b, self.lengths[b], self.world_size)[self.rank] for b in chosen]
        )


def deal(samples: np.ndarray, lengths: np.ndarray, hands: int) -> np.ndarray:
    """Distribute samples so that all hands get equally many, of similar total length.

    The longest remaining sample goes to the hand with the smallest total length.

    Args:
        samples: ``[N]``, N a multiple of ``hands``.
        lengths: ``[N]``.
        hands: Number of hands.

    Returns:
        ``[hands, N / hands]``, each row's longest sample first.
    """
    size = len(samples) // hands
    rows: list[list[int]] = [[] for _ in range(hands)]
    total = np.zeros(hands)
    for i in np.argsort(-lengths, kind='stable'):
        hand = int(total.argmin())
        rows[hand].append(samples[i])
        total[hand] = total[hand] + lengths[i] if len(rows[hand]) < size else np.inf
    return np.array(rows)
