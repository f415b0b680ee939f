"""Conversations from files, with access by index."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from itertools import groupby
from typing import Any

import numpy as np
from mmengine.logging import print_log
from PIL import Image
from torch.utils.data import Dataset

from mmtransmamba.datasets.conversations.bad_samples import BadSamples
from mmtransmamba.datasets.conversations.conversation import (
    BadSampleError,
    Conversation,
    image_path,
)
from mmtransmamba.datasets.conversations.encoder import ConversationEncoder
from mmtransmamba.datasets.conversations.encoding import Sample
from mmtransmamba.datasets.conversations.formats import Format, row_name
from mmtransmamba.datasets.conversations.rows import IndexedRows
from mmtransmamba.datasets.conversations.sources import Source, find_sources
from mmtransmamba.registry import DATASETS


@DATASETS.register_module()
class ConversationDataset(Dataset):
    """Conversations with or without images, for training or generation.

    Several files make a mixture. The files are indexed once and read row by row, so
    they need not fit into memory.

    In training, a bad sample is skipped, and the next sample of the same kind (with or
    without an image) takes its place. Bad samples are counted by reason, see
    :attr:`bad_samples`. For generation, bad rows are left out from the start, so that
    no question occurs twice.

    Args:
        files: Paths or patterns of JSON, JSON Lines or Parquet files, folders with
            Parquet files, or dicts with ``file`` and settings of their own:
            ``image_root``, ``format``, ``name``, and the amount, as ``ratio`` (2
            repeats every row twice, 0.5 takes half of the rows) or ``num_samples``.
            The selection is drawn once, from ``seed``.
        processor: Folder of a transformers processor, or of a tokenizer for text
            alone; or the object itself.
        image_root: Folder of the images; by default that of the file.
        format: Format of the rows, see ``docs/vlm_data.md``: ``'llava'``,
            ``'sharegpt4v'``, ``'llava_cot'``, ``'messages'``, ``'question'``,
            ``'solo'``, or a function from a row to a :class:`Conversation`.
        prompts: Return prompts to answer: without labels, ending where the last answer
            would start, and with ``answer``, ``question_id`` and ``category``.
        max_bad: Largest accepted share of bad rows, in [0, 1), counted separately by
            each process of a distributed run.
        seed: Seed of the selection.
        cache_dir: Folder for the index, by default ``.index`` beside each file.
        **encoding: Other arguments of
            :class:`~mmtransmamba.datasets.conversations.ConversationEncoder`.

    Raises:
        FileNotFoundError: A file or folder is missing.
        ValueError: A setting cannot be used, a file cannot be read, or more than
            ``max_bad`` of the rows are bad.
    """

    metainfo: dict = {}

    def __init__(
        self,
        files: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]],
        processor: Any,
        image_root: str | None = None,
        format: str | Format = 'llava',
        prompts: bool = False,
        max_bad: float = 0.01,
        seed: int = 0,
        cache_dir: str | None = None,
        **encoding: Any,
    ) -> None:
        self.encoder = ConversationEncoder(processor, **encoding)
        self.prompts = prompts
        self.sources = find_sources(files, image_root, format, ('ratio', 'num_samples'))
        self._files = [
            IndexedRows(
                source.file,
                source.measure,
                # For a function, only its name is known.
                _name_of(source.parse),
                cache_dir,
            )
            for source in self.sources
        ]
        self._first = np.cumsum([0, *(len(rows) for rows in self._files)])
        self._rows = self._select(seed)
        name = f'{type(self).__name__} of {", ".join(s.name for s in self.sources)}'
        used = len(np.unique(self._rows))
        self.bad_samples = BadSamples(name, int(self._first[-1]), used, max_bad)
        if prompts:
            self._leave_out_bad_rows()

    @property
    def processor(self) -> Any:
        """The transformers processor or tokenizer."""
        return self.encoder.processor

    def __len__(self) -> int:
        return len(self._rows)

    def lengths(self) -> np.ndarray:
        """Words of each sample, int64 ``[N]``; known without reading the samples."""
        return np.concatenate([rows.words for rows in self._files])[self._rows]

    def with_image(self) -> np.ndarray:
        """Whether each sample has an image, bool ``[N]``."""
        return np.concatenate([rows.has_image for rows in self._files])[self._rows]

    def conversation(self, index: int) -> Conversation:
        """The conversation of a sample, as it is in the file.

        Raises:
            BadSampleError: The row is not a conversation.
        """
        return self._read(int(self._rows[index]))[1]

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f'sample {index} of {len(self)}')
        if self.prompts:
            return self._prompt(index)
        wanted = index
        while True:
            row = int(self._rows[index])
            if row not in self.bad_samples:
                try:
                    return self.encoder.encode(self._read(row)[1])
                except BadSampleError as error:
                    self.bad_samples.add(row, error)
            index = self._next_alike(index, wanted)

    def _select(self, seed: int) -> np.ndarray:
        """Row of each sample; rows of all files are counted together."""
        parts = []
        for entry, files in groupby(self.sources, lambda source: source.entry):
            source, *others = files
            file = self.sources.index(source)
            begin, end = self._first[[file, file + 1 + len(others)]].tolist()
            parts.append(begin + _choose(end - begin, source, [seed, entry]))
        return np.concatenate(parts)

    def _prompt(self, index: int) -> Sample:
        row, conversation = self._read(int(self._rows[index]))
        last = conversation.turns[-1]
        try:
            sample = self.encoder.encode_prompt(conversation)
        except BadSampleError as error:
            raise ValueError(
                f'{self.bad_samples.name}: sample {index} cannot be asked: {error}'
            ) from error
        said = last.text if last.role == 'assistant' else _text_of(row, 'answer')
        sample['answer'] = said
        sample['question_id'] = row_name(row, str(index))
        sample['category'] = _text_of(row, 'category')
        return sample

    def _read(self, row: int) -> tuple[dict, Conversation]:
        file = int(np.searchsorted(self._first, row, side='right')) - 1
        number = row - int(self._first[file])
        content = self._files[file][number]
        return content, self.sources[file].conversation(content, number)

    def _next_alike(self, index: int, wanted: int) -> int:
        """The next sample that matches the wanted one: with an image, or without."""
        image = self._has_image(wanted)
        for step in range(1, len(self) + 1):
            other = (index + step) % len(self)
            if self._has_image(other) == image and (
                int(self._rows[other]) not in self.bad_samples
            ):
                return other
        raise ValueError(
            # Other processes need not come here.
            f'{self.bad_samples.report(everywhere=False)} None is left '
            f'{"with" if image else "without"} an image.'
        )

    def _has_image(self, index: int) -> bool:
        row = int(self._rows[index])
        file = int(np.searchsorted(self._first, row, side='right')) - 1
        return self._files[file].shows_image(row - int(self._first[file]))

    def _leave_out_bad_rows(self) -> None:
        for row in np.unique(self._rows).tolist():
            try:
                check_prompt(self._read(row)[1])
            except BadSampleError as error:
                self.bad_samples.add(row, error)
        good = [row not in self.bad_samples for row in self._rows.tolist()]
        if not all(good):
            self._rows = self._rows[good]
            print_log(f'{self.bad_samples.report()} They are left out.', 'current')


def _name_of(function: Callable) -> str:
    """A function's name, or that of a callable object's class."""
    named = function if hasattr(function, '__qualname__') else type(function)
    return f'{named.__module__}.{named.__qualname__}'


def check_prompt(conversation: Conversation) -> None:
    """Reject a conversation that cannot be asked, without decoding its images.

    Raises:
        BadSampleError: Turns or images are invalid.
    """
    turns = conversation.turns
    answered = bool(turns) and turns[-1].role == 'assistant'
    conversation.check(answered)
    for image in conversation.images:
        path = 'the content'
        if not isinstance(image, bytes):
            path = image_path(image, conversation.image_root)
        try:
            Image.open(BytesIO(image) if isinstance(image, bytes) else path).close()
        except Exception as error:
            raise BadSampleError(
                'corrupt image', f'{path} is not an image: {error!r}'
            ) from error


def _text_of(row: dict, key: str) -> str:
    """A field as text; one that is missing or null is empty."""
    value = row.get(key)
    return '' if value is None else str(value)


def _choose(count: int, source: Source, seed: Sequence[int]) -> np.ndarray:
    """Row numbers: whole repetitions of all rows, plus a random part of them.

    Raises:
        ValueError: There would be none.
    """
    amount = source.amount
    wanted = amount.get('num_samples', round(count * amount.get('ratio', 1)))
    if wanted < 1:
        raise ValueError(f'{source.name}: {amount} takes none of its {count} rows')
    times, rest = divmod(int(wanted), count)
    part = np.random.default_rng(seed).permutation(count)[:rest]
    return np.concatenate([np.tile(np.arange(count), times), np.sort(part)])
