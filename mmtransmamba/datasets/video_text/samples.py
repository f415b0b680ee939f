"""Samples of retrieval sets, and batches of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmtransmamba.datasets.video_text.tokenizers import Tokens, pad_tokens
from mmtransmamba.registry import FUNCTIONS

Tokenizer = Callable[[Sequence[str]], Tokens]


def pair_sample(
    video: Tensor, video_id: str, caption: str, caption_id: int, tokenizer: Tokenizer
) -> dict[str, Any]:
    """A video with one of its captions, to train on.

    Returns:
        ``video``, ``[3, T, H, W]``; ``input_ids`` and ``attention_mask``, ``[L]``;
        ``video_id`` and ``caption_id``.
    """
    tokens = {key: rows[0] for key, rows in tokenizer([caption]).items()}
    return dict(video=video, **tokens, video_id=video_id, caption_id=caption_id)


def video_sample(
    video: Tensor, video_id: str, captions: Sequence[str], tokenizer: Tokenizer
) -> dict[str, Any]:
    """A video with all of its captions, to test on.

    Returns:
        ``video``, ``[3, T, H, W]``; ``captions``, a dict of ``input_ids`` and
        ``attention_mask``, ``[n, L]``; ``video_id``.
    """
    return dict(video=video, captions=tokenizer(captions), video_id=video_id)


@FUNCTIONS.register_module()
def collate_video_text(batch: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Collate samples of :func:`pair_sample` or :func:`video_sample` into a batch.

    Returns:
        ``video``, ``[B, 3, T, H, W]``; ``video_id``, a list. For pairs also
        ``input_ids`` and ``attention_mask``, ``[B, L]``, padded at the end, and
        ``caption_id``, a list; for videos ``captions``, a list.
    """
    names = ('video_id', 'caption_id', 'captions')
    collated = {name: [s[name] for s in batch] for name in names if name in batch[0]}
    collated['video'] = torch.stack([sample['video'] for sample in batch])
    if 'input_ids' in batch[0]:
        rows = [s['input_ids'][s['attention_mask'] == 1].tolist() for s in batch]
        collated.update(pad_tokens(rows))
    return collated
