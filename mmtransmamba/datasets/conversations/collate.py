"""Batches of encoded conversations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmtransmamba.datasets.token_collate import IGNORED
from mmtransmamba.registry import FUNCTIONS

_LISTS = {'answer': 'answers', 'question_id': 'question_ids', 'category': 'categories'}
SIDES = ('left', 'right')


@FUNCTIONS.register_module()
def collate_conversations(
    batch: Sequence[Mapping[str, Any]], pad_token: int = 0, side: str | None = None
) -> dict[str, Any]:
    """Pad conversation samples to one length.

    Args:
        batch: Samples of :func:`~mmtransmamba.datasets.conversations.encode` or of
            :func:`~mmtransmamba.datasets.conversations.encode_prompt`.
        pad_token: Id that pads ``input_ids``.
        side: Side of the padding, ``'right'`` or ``'left'``. The default is right for
            training, and left for prompts, because generation continues at the end.

    Returns:
        ``input_ids``, ``attention_mask`` and, for training, ``labels`` (-100 for
        padding), ``[B, L]``; if a sample has images, ``pixel_values`` ``[N, 3, H, W]``,
        sample after sample, and for LLaVA with tiles ``image_sizes`` and
        ``batch_num_images``. Lists ``answers``, ``question_ids`` and ``categories`` if
        the samples have them.

    Raises:
        ValueError: The side is unknown, or prompts and answered conversations are
            mixed.
    """
    learned = ['labels' in sample for sample in batch]
    if any(learned) != all(learned):
        raise ValueError(
            f'{sum(learned)} of the {len(batch)} samples have labels; a batch is '
            'either to learn or to answer.'
        )
    side = side or ('right' if learned[0] else 'left')
    if side not in SIDES:
        raise ValueError(f'side must be one of {SIDES}, got {side!r}')
    fill = dict(input_ids=pad_token, attention_mask=0)
    if learned[0]:
        fill['labels'] = IGNORED
    out: dict[str, Any] = {
        key: pad_rows([sample[key] for sample in batch], value, side)
        for key, value in fill.items()
    }
    out.update(stack_pixels(batch))
    for name, names in _LISTS.items():
        if name in batch[0]:
            out[names] = [sample[name] for sample in batch]
    return out


def pad_rows(rows: Sequence[Tensor], value: int, side: str = 'right') -> Tensor:
    """Stack rows ``[L_i]`` of different length: ``[B, L]``."""
    length = max(len(row) for row in rows)
    padded = []
    for row in rows:
        missing = length - len(row)
        where = (missing, 0) if side == 'left' else (0, missing)
        padded.append(F.pad(row, where, value=value))
    return torch.stack(padded)


def stack_pixels(batch: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """All images of a batch, and their sizes; an empty dict if there are none.

    The ``[N, tiles, 3, H, W]`` of LLaVA with tiles are padded to the same number.
    """
    shown = [sample for sample in batch if 'pixel_values' in sample]
    if not shown:
        return {}
    pixels = [sample['pixel_values'] for sample in shown]
    if pixels[0].ndim == 5:
        tiles = max(images.shape[1] for images in pixels)
        pixels = [
            F.pad(images, (0,) * 7 + (tiles - images.shape[1],)) for images in pixels
        ]
    out = dict(pixel_values=torch.cat(pixels))
    for name in ('image_sizes', 'batch_num_images'):
        if name in shown[0]:
            out[name] = torch.cat([sample[name] for sample in shown])
    return out
