"""Several conversations in one row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmtransmamba.datasets.conversations.collate import pad_rows, stack_pixels
from mmtransmamba.datasets.token_collate import IGNORED
from mmtransmamba.registry import FUNCTIONS

Row = dict[str, Tensor]


def join(samples: Sequence[Mapping[str, Any]]) -> Row:
    """Concatenate samples into a row.

    ``position_ids`` restart from 0 at each sample. This tells a model not to attend, or
    carry its state, across the boundary. There is no ``attention_mask``.

    Args:
        samples: Samples of :func:`~mmtransmamba.datasets.conversations.encode`.

    Returns:
        ``input_ids``, ``labels`` and ``position_ids``, int64 ``[L]``; if there are
        images ``pixel_values``, and for LLaVA with tiles ``image_sizes`` and
        ``batch_num_images``.
    """
    labels = torch.cat([sample['labels'] for sample in samples])
    lengths = [len(sample['input_ids']) for sample in samples]
    begins = torch.tensor([0, *lengths[:-1]]).cumsum(0)
    labels[begins] = IGNORED  # what would be predicted from the sample before
    return dict(
        input_ids=torch.cat([sample['input_ids'] for sample in samples]),
        labels=labels,
        position_ids=torch.cat([torch.arange(length) for length in lengths]),
        **stack_pixels(samples),
    )


def fill_rows(
    samples: Iterable[Mapping[str, Any]], length: int, open_rows: int | None = None
) -> Iterator[list[Mapping[str, Any]]]:
    """Distribute samples to rows, each to the first row that has room for it.

    Args:
        samples: With ``input_ids``.
        length: Maximum number of tokens in a row.
        open_rows: Number of rows kept open; beyond it, the fullest row is yielded. By
            default, all rows stay open until the samples end.

    Yields:
        The samples of a row.

    Raises:
        ValueError: A sample is longer than a row.
    """
    rows: list[list[Mapping[str, Any]]] = []
    used: list[int] = []
    for sample in samples:
        size = len(sample['input_ids'])
        if size > length:
            raise ValueError(
                f'A sample of {size} tokens does not fit into a row of {length}; set '
                "the dataset's max_length to the length of the rows."
            )
        for i, full in enumerate(used):
            if full + size <= length:
                rows[i].append(sample)
                used[i] += size
                break
        else:
            rows.append([sample])
            used.append(size)
        if open_rows is not None and len(rows) > open_rows:
            fullest = max(range(len(rows)), key=used.__getitem__)
            used.pop(fullest)
            yield rows.pop(fullest)
    yield from rows


@FUNCTIONS.register_module()
def pack_conversations(
    batch: Sequence[Mapping[str, Any]], length: int, pad_token: int = 0
) -> dict[str, Tensor]:
    """Pack a batch of samples into few rows, longest samples first.

    Args:
        batch: Samples of :func:`~mmtransmamba.datasets.conversations.encode`, or rows
            of a packed :class:`~mmtransmamba.datasets.ConversationStream`, which are
            kept unchanged.
        length: Maximum number of tokens in a row.
        pad_token: Id that pads the shorter rows. Padding is a separate sequence that is
            not learned.

    Returns:
        ``input_ids``, ``labels`` and ``position_ids``, ``[rows, L]``, with L the
        longest row's length; if there are images ``pixel_values`` ``[N, 3, H, W]`` in
        the order of the rows, and for LLaVA with tiles ``image_sizes`` and
        ``batch_num_images``. No ``attention_mask``.

    Raises:
        ValueError: A sample is longer than a row.
    """
    if 'position_ids' in batch[0]:
        rows: list[Mapping[str, Tensor]] = list(batch)
    else:
        longest_first = sorted(batch, key=lambda s: -len(s['input_ids']))
        rows = [join(samples) for samples in fill_rows(longest_first, length)]
    longest = max(len(row['input_ids']) for row in rows)
    positions = [
        torch.cat([row['position_ids'], torch.arange(longest - len(row['input_ids']))])
        for row in rows
    ]
    return dict(
        input_ids=pad_rows([row['input_ids'] for row in rows], pad_token),
        labels=pad_rows([row['labels'] for row in rows], IGNORED),
        position_ids=torch.stack(positions),
        **stack_pixels(rows),
    )
