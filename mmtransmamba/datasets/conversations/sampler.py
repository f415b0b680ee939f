"""A sampler that groups similar samples into batches."""

from __future__ import annotations

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
        round_up: Fill the last batches; otherwise they are dropped.

    Raises:
        ValueError: ``batch_size`` is not positive, the dataset has no lengths, or no
            batch is left.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        seed: int | None = None,
        round_up: bool = True,
    ) -> None:
        if batch_size < 1:
            raise ValueError(
                f'LengthGroupedSampler: batch_size={batch_size} is not positive.'
            )
        if not (hasattr(dataset, 'lengths') and hasattr(dataset, 'with_image')):
            raise ValueError(
                f'LengthGroupedSampler: {type(dataset).__name__} has no lengths() and '
                'with_image(), which tell what samples are alike.'
            )
        self.rank, self.world_size = get_dist_info()
        self.batch_size = batch_size
        self.seed = sync_random_seed() if seed is None else seed
        self.round_up = round_up
        self.epoch = 0
        self._passed = 0  # epochs before those counted by ``epoch``
        self._start = 0
        self.lengths = np.asarray(dataset.lengths())
        image = np.asarray(dataset.with_image(), bool)
        self.kinds = [
            k for k in (np.flatnonzero(image), np.flatnonzero(~image)) if len(k)
        ]
        together = batch_size * self.world_size
        sizes = [len(kind) / together for kind in self.kinds]
        batches = sum(int(np.ceil(n) if round_up else n) for n in sizes)
        if batches == 0:
            raise ValueError(
                f'LengthGroupedSampler: {len(self.lengths)} samples do not fill a '
                f'batch of {batch_size} in each of {self.world_size} processes.'
            )
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
            whole, rest = divmod(len(order), together)
            if rest and self.round_up:
                order = np.resize(order, (whole + 1) * together)
            else:
                order = order[: whole * together]
            batches.append(order.reshape(-1, together))
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
