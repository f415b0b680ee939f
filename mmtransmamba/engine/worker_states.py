"""The random numbers of a dataloader's worker processes.

Workers load batches ahead of the training, so a worker's generators are ahead of the
batches used in training. Each worker therefore records the states after each of its
batches, in memory shared with the training process. That process selects the states
that belong to the last batch it took from the worker.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from mmtransmamba.engine.random_state import cpu_state, set_cpu_state


class WorkerStates:
    """Tracks the workers of a dataloader of a map-style dataset.

    Create it before the dataloader starts its workers.

    Args:
        loader: A dataloader with at least one worker.
    """

    def __init__(self, loader: DataLoader) -> None:
        self.count = loader.num_workers
        self.persistent = loader.persistent_workers
        # A worker is at most prefetch_factor batches ahead.
        self._slots = loader.prefetch_factor + 2
        self._memory = torch.zeros(
            self.count, self._slots, cpu_state().numel(), dtype=torch.uint8
        ).share_memory_()
        self._done = [0] * self.count
        self._taken = 0  # batches since the workers began with the data
        self._loader = loader
        self._begun = False
        self._resumes = False
        self._shift = 0  # the worker that had the first batch of a resumed pass
        self._init = _Init(loader.worker_init_fn, self._memory)
        loader.worker_init_fn = self._init
        loader.collate_fn = _Collate(loader.collate_fn, self._memory)

    def begin(self) -> bool:
        """Call when a new iteration over the dataloader is about to start.

        Returns:
            Whether persistent workers are replaced by new ones. A pass always starts
            with the first worker, so after a resumed pass they change places.
        """
        if not self._resumes:
            self._init.states = None
        replaces = self.persistent and self._shift > 0 and not self._resumes
        if replaces:
            self._init.states = self._states(-self._shift)
            self._shift = 0
            self._begun = False
            self._loader._iterator = None
        self._resumes = False
        if not (self.persistent and self._begun):
            self._done = [0] * self.count
        self._taken = 0
        return replaces

    def take(self) -> None:
        """Call when a batch was taken from the dataloader."""
        self._begun = True
        self._done[self._taken % self.count] += 1
        self._taken += 1

    def end(self) -> None:
        """Call when all batches were taken."""
        self._taken = 0

    def state(self) -> Tensor | None:
        """The states after the batches taken so far.

        Returns:
            uint8 ``[W, N]`` in the order of the workers' next batches, or None if the
            next batch comes from new workers.
        """
        if not self._begun or not (self._taken or self.persistent):
            return None
        return self._states(self._taken)

    def _states(self, first: int) -> Tensor:
        order = [(first + i) % self.count for i in range(self.count)]
        return torch.stack(
            [self._memory[w, self._done[w] % self._slots].clone() for w in order]
        )

    def resume(self, states: Tensor, consumed: int) -> None:
        """Restore the workers of the next pass from the output of :meth:`state`.

        Args:
            states: The states.
            consumed: Batches of the pass before it was interrupted.
        """
        self._resumes = True
        self._shift = consumed % self.count
        self._init.states = states.cpu()


class _Init:
    """Sets a worker's generators when it starts."""

    def __init__(self, inner: Callable[[int], None] | None, memory: Tensor) -> None:
        self.inner = inner
        self.states: Tensor | None = None
        self._memory = memory

    def __call__(self, worker: int) -> None:
        if self.inner is not None:
            self.inner(worker)
        if self.states is not None:
            set_cpu_state(self.states[worker])
        self._memory[worker, 0] = cpu_state()


class _Collate:
    """Records a worker's states after each batch."""

    def __init__(self, inner: Callable[[list], Any], memory: Tensor) -> None:
        self.inner = inner
        self._memory = memory
        self._done = 0

    def __call__(self, samples: list) -> Any:
        batch = self.inner(samples)
        worker = torch.utils.data.get_worker_info()
        if worker is not None:
            self._done += 1
            slot = self._done % self._memory.shape[1]
            self._memory[worker.id, slot] = cpu_state()
        return batch
