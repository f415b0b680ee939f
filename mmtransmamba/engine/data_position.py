"""The position of a training in its data, for resuming from it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Any

from mmengine.runner.loops import _InfiniteDataloaderIterator
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from mmtransmamba.engine.random_state import (
    generator_states,
    set_generator_states,
)
from mmtransmamba.engine.worker_states import WorkerStates

States = dict[str, Tensor]


class DataPosition:
    """Follows one process through the batches of its training.

    Args:
        loader: The dataloader of the training; its workers must not have started.
    """

    def __init__(self, loader: DataLoader) -> None:
        self.loader = loader
        self.streams = isinstance(loader.dataset, IterableDataset)
        self.consumed = 0  # batches of this pass over the data
        self.sampler = _Followed(_index_sampler(loader))
        self._workers = None
        if self.streams:
            return
        # Workers that already started, to inspect the data, would not be tracked.
        if getattr(loader, '_iterator', None) is not None:
            loader._iterator = None
        # A dataloader does not allow setting its sampler, although it reads it each
        # time.
        name = 'sampler' if loader.batch_sampler is None else 'batch_sampler'
        vars(loader)[name] = self.sampler
        if loader.num_workers > 0:
            self._workers = WorkerStates(loader)

    def begin(self) -> None:
        """Call when a pass over the data is about to start."""
        self.consumed = 0
        if self._workers is not None and self._workers.begin():
            # New workers draw a number that existing workers do not need.
            self.sampler.resume(generator_states(), 0, None)

    def take(self) -> None:
        """Call when a batch was taken."""
        self.consumed += 1
        if self._workers is not None:
            self._workers.take()

    def end(self) -> None:
        """Call when the pass has ended."""
        self.sampler.start = None
        self.consumed = 0
        if self._workers is not None:
            self._workers.end()

    def state(self, now: States) -> dict[str, Any]:
        """The data that :meth:`resume` needs, as tensors and numbers.

        Args:
            now: The generators' states to continue with.
        """
        workers = None if self._workers is None else self._workers.state()
        return dict(
            now=now,
            start=self.sampler.start,
            consumed=self.consumed,
            workers=workers,
            num_workers=self.loader.num_workers,
            sampler_seed=getattr(_sampler(self.loader), 'seed', None),
            worker_seed=_seeded(self.loader.worker_init_fn).get('seed'),
        )

    def prepare(self, saved: dict[str, Any]) -> None:
        """Seed sampler and workers as in the interrupted run.

        A run without a seed in its config had a random one.
        """
        sampler = _sampler(self.loader)
        if saved['sampler_seed'] is not None and hasattr(sampler, 'seed'):
            sampler.seed = saved['sampler_seed']
        _seeded(self.loader.worker_init_fn).update(
            {} if saved['worker_seed'] is None else dict(seed=saved['worker_seed'])
        )
        if saved['workers'] is not None and self._workers is not None:
            if saved['num_workers'] == self._workers.count:
                self._workers.resume(saved['workers'], saved['consumed'])

    def resume(self, saved: dict[str, Any], skip: bool = True) -> None:
        """Start the next pass at the position where it was interrupted.

        Args:
            saved: Output of :meth:`state`.
            skip: Whether to skip batches; otherwise the sampler itself starts at the
                right position.
        """
        self.begin()
        self.consumed = saved['consumed']
        if saved['start'] is not None:
            skipped = self.consumed if skip else 0
            self.sampler.resume(saved['start'], skipped, saved['now'])
        elif self.loader.num_workers > 0 and self.loader.persistent_workers:
            # New workers draw a number that existing workers do not need.
            self.sampler.resume(generator_states(), 0, None)


class ResumableIterator(_InfiniteDataloaderIterator):
    """Endless batches for an iteration-based loop, from any position.

    Args:
        position: Position of the dataloader that it iterates over.
        saved: The position's ``state`` in the run to resume, plus ``passes``; None in a
            new run.
    """

    def __init__(self, position: DataPosition, saved: dict[str, Any] | None) -> None:
        super().__init__(position.loader)
        self._position = position
        self._saved = saved
        self._resuming = False

    @property
    def passes(self) -> int:
        """Complete passes over the data."""
        return self._epoch

    def skip_iter(self, num_iters: int) -> None:
        """Continue after this many batches; the loop calls this when it resumes."""
        if self._saved is None:
            super().skip_iter(num_iters)
        elif self._position.streams:
            super().skip_iter(num_iters)
            set_generator_states(self._saved['now'])
        elif self._resolve_sampler() is not None and self._resolve_batch_size():
            super().skip_iter(num_iters)
            self._position.resume(self._saved, skip=False)
            self._resuming = True
        else:
            self._epoch = self._saved['passes']
            sampler = _sampler(self._dataloader)
            if hasattr(sampler, 'set_epoch'):
                sampler.set_epoch(self._epoch)
            self._position.resume(self._saved)
            self._resuming = True

    def _resolve_sampler(self) -> Any:
        inner = self._position.sampler.inner
        if type(inner) is BatchSampler and hasattr(inner.sampler, 'skip'):
            return inner.sampler
        return super()._resolve_sampler()

    def __next__(self) -> Any:
        batch = super().__next__()
        self._position.take()
        return batch

    def _ensure_iterator(self) -> None:
        if self._iterator is None:
            if not self._resuming:
                self._position.begin()
            self._resuming = False
        super()._ensure_iterator()

    def _reset_iterator(self) -> None:
        self._position.begin()
        super()._reset_iterator()


class _Followed:
    """A sampler that can start in the middle.

    The generators are read or set when the first index is requested. Before that, a
    dataloader draws a number if it starts its workers, but not if they exist already.

    Attributes:
        start: The generators' states at the start of the pass, None between passes.
    """

    def __init__(self, sampler: Any) -> None:
        self.inner = sampler
        self.start: States | None = None
        self._resumed: tuple[States, int, States | None] | None = None

    def __getattr__(self, name: str) -> Any:
        if name == 'inner':  # not set yet while a copy is made
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __len__(self) -> int:
        return len(self.inner)

    def resume(self, start: States, skip: int, now: States | None) -> None:
        """Begin the next pass with the generators at ``start``, and set them to
        ``now`` after ``skip`` indices, which are left out."""
        self._resumed = start, skip, now

    def __iter__(self) -> Iterator:
        start, skip, now = self._resumed or (None, 0, None)
        self._resumed = None
        if start is not None:
            set_generator_states(start)
        self.start = generator_states()
        indices = iter(self.inner)
        next(islice(indices, skip, skip), None)
        if now is not None:
            set_generator_states(now)
        yield from indices


def _index_sampler(loader: DataLoader) -> Any:
    """The source of the dataloader's indices; the inner one of a followed sampler."""
    sampler = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
    return getattr(sampler, 'inner', sampler)


def _sampler(loader: DataLoader) -> Any:
    """The sampler of single samples."""
    return getattr(loader.batch_sampler, 'sampler', loader.sampler)


def _seeded(function: Any) -> dict[str, Any]:
    """The arguments of mmengine's worker seeding, to read and to change."""
    function = getattr(function, 'inner', function)
    return function.keywords if isinstance(function, partial) else {}
