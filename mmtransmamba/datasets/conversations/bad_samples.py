"""Counts of samples that cannot be used."""

from __future__ import annotations

import logging
from collections import Counter

import torch
from mmengine.dist import all_reduce
from mmengine.logging import print_log
from torch import Tensor
from torch.utils.data import get_worker_info

from mmtransmamba.datasets.conversations.conversation import REASONS, BadSampleError

_SHOWN = 5  # messages shown per reason
_SLOTS = 256  # workers with a separate count


class BadSamples:
    """The bad rows of a set, shared by all workers of a process.

    Args:
        name: Name of the set in messages.
        rows: Rows of its files.
        total: How many of them the set uses.
        max_bad: Largest accepted share of bad rows, in [0, 1).
    """

    def __init__(self, name: str, rows: int, total: int, max_bad: float) -> None:
        self.name = name
        self.total = total
        self.max_bad = check_max_bad(name, max_bad)
        # 0, or one more than the number of the reason.
        self._codes = torch.zeros(rows, dtype=torch.uint8).share_memory_()

    def __contains__(self, row: int) -> bool:
        return bool(self._codes[row])

    def add(self, row: int, error: BadSampleError) -> None:
        """Record a bad row.

        Raises:
            ValueError: There are too many bad rows.
        """
        self._codes[row] = 1 + REASONS.index(error.reason)
        counts = self.counts(everywhere=False)
        bad = sum(counts.values())
        if bad > self.max_bad * self.total or bad == self.total:
            raise ValueError(
                f'{_report(self.name, counts, self.total)} Accepted are at most '
                f'{self.max_bad:.2%} (max_bad). The last one: {error}'
            ) from error
        _show(self.name, counts[error.reason], error)

    def counts(self, everywhere: bool = True) -> Counter[str]:
        """The number of bad rows, by reason.

        Args:
            everywhere: Include the other processes of a distributed run; all of them
                must then call this method.
        """
        codes = self._codes
        if everywhere:
            codes = codes.clone()
            all_reduce(codes, 'max')
        found = torch.bincount(codes.int(), minlength=1 + len(REASONS))[1:]
        return _counter(found)

    def report(self, everywhere: bool = True) -> str:
        """One line.

        Args:
            everywhere: See :meth:`counts`; the line is then equal in all processes.
        """
        return _report(self.name, self.counts(everywhere), self.total)


class BadSampleCounts:
    """The number of bad samples in the part of a stream read so far.

    Args:
        name: Name of the stream in messages.
        max_bad: Largest accepted share of bad samples, in [0, 1), which each worker
            checks after 100 samples.
    """

    def __init__(self, name: str, max_bad: float) -> None:
        self.name = name
        self.max_bad = check_max_bad(name, max_bad)
        # One row per worker: with a shared row, counts would be lost.
        shape = (_SLOTS, 1 + len(REASONS))
        self._counts = torch.zeros(shape, dtype=torch.int64).share_memory_()

    def good(self) -> None:
        """Count a usable sample."""
        self._own()[0] += 1

    def add(self, error: BadSampleError) -> None:
        """Count a bad sample.

        Raises:
            ValueError: There are too many bad samples.
        """
        own = self._own()
        own[1 + REASONS.index(error.reason)] += 1
        seen, bad = int(own.sum()), int(own[1:].sum())
        if seen >= 100 and bad > self.max_bad * seen:
            raise ValueError(
                f'{_report(self.name, _counter(own[1:]), seen)} Accepted are at most '
                f'{self.max_bad:.2%} (max_bad). The last one: {error}'
            ) from error
        _show(self.name, int(own[1 + REASONS.index(error.reason)]), error)

    def report(self) -> str:
        """One line, equal in all processes. All of them must call this method."""
        counts = self._counts.sum(0)
        all_reduce(counts, 'sum')
        return _report(self.name, _counter(counts[1:]), int(counts.sum()))

    def _own(self) -> Tensor:
        worker = get_worker_info()
        return self._counts[worker.id % _SLOTS if worker else 0]


def check_max_bad(name: str, max_bad: float) -> float:
    """Check that ``max_bad`` is a valid share.

    Raises:
        ValueError: It is not in [0, 1).
    """
    if not 0 <= max_bad < 1:
        raise ValueError(f'{name}: max_bad must be in [0, 1), got {max_bad!r}')
    return max_bad


def _counter(found: Tensor) -> Counter[str]:
    pairs = zip(REASONS, found.tolist(), strict=True)
    return Counter({reason: count for reason, count in pairs if count})


def _report(name: str, counts: Counter[str], total: int) -> str:
    bad = sum(counts.values())
    by_reason = ', '.join(f'{n} {reason}' for reason, n in counts.most_common())
    return f'{name}: {bad} of {total} samples are bad' + (
        f' ({by_reason}).' if bad else '.'
    )


def _show(name: str, count: int, error: BadSampleError) -> None:
    if count <= _SHOWN:
        more = ' (more of this reason are only counted)' if count == _SHOWN else ''
        print_log(
            f'{name}: skipped a sample: {error}{more}', 'current', logging.WARNING
        )
