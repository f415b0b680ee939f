"""Invariances of every model of sequences, for decoders that return logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache

from mmtransmamba.models.language.cache_names import as_argument


@torch.no_grad()
def check_sequences(model: nn.Module, ids: Tensor, pieces: tuple[int, ...]) -> Tensor:
    """Pieces through a cache, padding and packing do not change the logits.

    Args:
        model: In evaluation mode.
        ids: Tokens ``[2, L]``.
        pieces: Lengths that add up to L.

    Returns:
        The logits ``[2, L, V]``.
    """
    close = dict(rtol=1e-3, atol=1e-4)
    length = ids.shape[1]
    whole = model(ids).logits
    cache = DynamicCache(config=model.config)
    parts = [
        model(piece, use_cache=True, **as_argument(cache)).logits
        for piece in ids.split(pieces, dim=1)
    ]
    torch.testing.assert_close(torch.cat(parts, 1), whole, **close)
    for pad in ((3, 0), (0, 3)):
        mask = F.pad(torch.ones_like(ids), pad)
        logits = model(F.pad(ids, pad), attention_mask=mask).logits
        logits = logits[:, pad[0] : pad[0] + length]
        torch.testing.assert_close(logits, whole, **close)
    packed = model(
        ids.view(1, -1), position_ids=torch.arange(length).repeat(2)[None]
    ).logits
    torch.testing.assert_close(packed.view_as(whole), whole, **close)
    return whole
