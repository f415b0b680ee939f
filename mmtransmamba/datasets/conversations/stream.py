"""Conversations streamed from files."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.dist import get_dist_info
from torch.utils.data import IterableDataset, get_worker_info

from mmtransmamba.datasets.conversations.bad_samples import BadSampleCounts
from mmtransmamba.datasets.conversations.conversation import BadSampleError
from mmtransmamba.datasets.conversations.encoder import ConversationEncoder
from mmtransmamba.datasets.conversations.encoding import Sample
from mmtransmamba.datasets.conversations.formats import Format
from mmtransmamba.datasets.conversations.packing import fill_rows, join
from mmtransmamba.datasets.conversations.rows import scan_rows
from mmtransmamba.datasets.conversations.sources import Source, find_sources
from mmtransmamba.registry import DATASETS

_OPEN_ROWS = 32
Drawn = tuple[Source, int, Any]


@DATASETS.register_module()
class ConversationStream(IterableDataset):
    """Conversations from files of any size, read sequentially.

    There is no index, and the length is unknown. Each worker of each process reads
    every n-th row of each file. The order is that of the files, shuffled in a buffer.
    It depends only on ``seed`` and on the numbers of processes and workers.

    Args:
        files, processor, image_root, format, **encoding: As in
            :class:`~mmtransmamba.datasets.ConversationDataset`, but instead of
            ``ratio`` and ``num_samples`` an entry may have a ``weight``, its sampling
            frequency, which several files share evenly; the default is their size in
            bytes.
        shuffle_buffer: Number of rows in the shuffle buffer; 1 keeps the order.
        repeat: Restart a file when it ends. Otherwise the stream ends with its last
            file, in each worker after a different number of samples.
        pack_length: Pack the samples into rows of at most this many tokens; use
            ``pack_conversations`` as the dataloader's ``collate_fn``.
        max_bad: Largest accepted share of bad samples, in [0, 1), in each worker.
        seed: Seed of the order.

    Raises:
        FileNotFoundError: A file or folder is missing.
        ValueError: A setting cannot be used, a file cannot be read, there are too many
            bad samples, or a worker finds no good sample.
    """

    metainfo: dict = {}

    def __init__(
        self,
        files: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]],
        processor: Any,
        image_root: str | None = None,
        format: str | Format = 'llava',
        shuffle_buffer: int = 1000,
        repeat: bool = True,
        pack_length: int | None = None,
        max_bad: float = 0.01,
        seed: int = 0,
        **encoding: Any,
    ) -> None:
        if shuffle_buffer < 1:
            raise ValueError(
                f'ConversationStream: shuffle_buffer={shuffle_buffer} is less than 1.'
            )
        if pack_length is not None:
            longest = encoding.setdefault('max_length', pack_length)
            if longest is None or longest > pack_length:
                raise ValueError(
                    f'ConversationStream: max_length={longest} must be at most '
                    f'pack_length={pack_length}, the length of a row.'
                )
        self.encoder = ConversationEncoder(processor, **encoding)
        self.sources = find_sources(files, image_root, format, ('weight',))
        self.shuffle_buffer = shuffle_buffer
        self.repeat = repeat
        self.pack_length = pack_length
        self.seed = seed
        name = f'{type(self).__name__} of {", ".join(s.name for s in self.sources)}'
        self.bad_samples = BadSampleCounts(name, max_bad)

    @property
    def processor(self) -> Any:
        """The transformers processor or tokenizer."""
        return self.encoder.processor

    def __len__(self) -> int:
        """A number larger than any run, because mmengine's hooks need a length.

        Raises:
            TypeError: The stream is finite, and its length is unknown.
        """
        if not self.repeat:
            raise TypeError(
                'ConversationStream: a stream that ends (repeat=False) has no known '
                "length; for mmengine's Runner it must have repeat=True."
            )
        return sys.maxsize

    def __iter__(self) -> Iterator[Sample]:
        samples = self._samples()
        if self.pack_length is None:
            return samples
        rows = fill_rows(samples, self.pack_length, _OPEN_ROWS)
        return (join(row) for row in rows)

    def _samples(self) -> Iterator[Sample]:
        shard, shards = _shard()
        rng = np.random.default_rng([self.seed, shard])
        for source, number, row in self._shuffled(self._drawn(rng, shard, shards), rng):
            try:
                if not isinstance(row, dict):
                    raise BadSampleError(
                        'unreadable row',
                        f'row {number} of {source.file} is not a JSON object',
                    )
                sample = self.encoder.encode(source.conversation(row, number))
            except BadSampleError as error:
                self.bad_samples.add(error)
            else:
                self.bad_samples.good()
                yield sample

    def _drawn(
        self, rng: np.random.Generator, shard: int, shards: int
    ) -> Iterator[Drawn]:
        """Rows of the files, drawn by weight."""
        open_files = [
            (source, self._rows(source, shard, shards)) for source in self.sources
        ]
        while open_files:
            weights = np.array([_weight(source) for source, _ in open_files], float)
            chosen = rng.choice(len(open_files), p=weights / weights.sum())
            source, rows = open_files[chosen]
            try:
                yield source, *next(rows)
            except StopIteration:
                del open_files[chosen]

    def _rows(
        self, source: Source, shard: int, shards: int
    ) -> Iterator[tuple[int, Any]]:
        while True:
            found = False
            scanned = scan_rows(source.file, shard, shards)
            for i, (_, _, row) in enumerate(scanned):
                found = True
                yield shard + i * shards, row
            if not self.repeat:
                return
            if not found:
                raise ValueError(
                    f'ConversationStream: {source.file} has no row for worker {shard} '
                    f'of {shards}.'
                )

    def _shuffled(
        self, rows: Iterator[Drawn], rng: np.random.Generator
    ) -> Iterator[Drawn]:
        buffer: list[Drawn] = []
        for row in rows:
            buffer.append(row)
            if len(buffer) >= self.shuffle_buffer:
                yield _take(buffer, rng)
        while buffer:
            yield _take(buffer, rng)


def _shard() -> tuple[int, int]:
    """Index of this worker among those of all processes, and their number."""
    rank, world_size = get_dist_info()
    worker = get_worker_info()
    workers = worker.num_workers if worker else 1
    return rank * workers + (worker.id if worker else 0), world_size * workers


def _weight(source: Source) -> float:
    if 'weight' in source.amount:
        return source.amount['weight'] / source.siblings
    return source.file.stat().st_size


def _take(buffer: list, rng: np.random.Generator) -> Any:
    chosen = int(rng.integers(len(buffer)))
    buffer[chosen], buffer[-1] = buffer[-1], buffer[chosen]
    return buffer.pop()
