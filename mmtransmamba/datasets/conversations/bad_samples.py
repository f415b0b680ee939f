"""Counting the samples that cannot be used."""

from __future__ import annotations

import logging
from collections import Counter

import torch
from mmengine.dist import all_reduce
from mmengine.logging import print_log
from torch import Tensor
from torch.utils.data import get_worker_info

from mmtransmamba.datasets.conversations.conversation import REASONS, BadSampleError

_SHOWN = 5  # messages of each reason
_SLOTS = 256  # workers that count for themselves


class BadSamples:
    """Which rows of a set are bad, shared by all workers of a process.

    Args:
        name: What messages call the set.
        total: Rows of the set.
        max_bad: Largest accepted part of bad rows, in [0, 1).
    """

    def __init__(self, name: str, total: int, max_bad: float) -> None:
        self.name = name
        self.total = total
        self.max_bad = check_max_bad(name, max_bad)
        # 0, or one more than the number of the reason.
        self._codes = torch.zeros(total, dtype=torch.uint8).share_memory_()

    def __contains__(self, row: int) -> bool:
        return bool(self._codes[row])

    def add(self, row: int, error: BadSampleError) -> None:
        """Note a bad row.

        Raises:
            ValueError: There are too many.
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
        """How many rows are bad, by reason.

        Args:
            everywhere: Also what the other processes of a distributed run have found;
                all of them must ask then.
        """
        codes = self._codes
        if everywhere:
            codes = codes.clone()
            all_reduce(codes, 'max')
        found = torch.bincount(codes.int(), minlength=1 + len(REASONS))[1:]
        return _counter(found)

    def report(self) -> str:
        """One line, the same in all processes, which all must ask for it."""
        return _report(self.name, self.counts(), self.total)


class BadSampleCounts:
    """How many samples of a stream were bad; what it has not read is not known.

    Args:
        name: What messages call the stream.
        max_bad: Largest accepted part of bad samples, in [0, 1), which each worker
            heeds after 100 samples.
    """

    def __init__(self, name: str, max_bad: float) -> None:
        self.name = name
        self.max_bad = check_max_bad(name, max_bad)
        # A row for each worker: they would lose counts of a row they share.
        shape = (_SLOTS, 1 + len(REASONS))
        self._counts = torch.zeros(shape, dtype=torch.int64).share_memory_()

    def good(self) -> None:
        """Count a sample that could be used."""
        self._own()[0] += 1

    def add(self, error: BadSampleError) -> None:
        """Count one that could not.

        Raises:
            ValueError: There are too many.
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
        """One line, the same in all processes, which all must ask for it."""
        counts = self._counts.sum(0)
        all_reduce(counts, 'sum')
        return _report(self.name, _counter(counts[1:]), int(counts.sum()))

    def _own(self) -> Tensor:
        worker = get_worker_info()
        return self._counts[worker.id % _SLOTS if worker else 0]


def check_max_bad(name: str, max_bad: float) -> float:
    """Refuse what is no part.

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
