"""Padding tokens, which a recurrence has to skip.

Attention hides padding with a mask. A recurrence keeps its state there, and a causal
convolution has to see the previous tokens as if there were no padding in between.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.cache_utils import Cache


def read_values() -> bool:
    """Whether a tensor's values may be read; in a traced graph they may not."""
    return not (torch.compiler.is_compiling() or torch.jit.is_tracing())


def local_padding(attention_mask: Tensor | None, length: int) -> Tensor | None:
    """Mask of the last tokens that are not padding.

    Args:
        attention_mask: ``[B, M]``, 0 for padding, M at least ``length``.
        length: Number of tokens L.

    Returns:
        Bool ``[B, L]``, or None if all of them are tokens.
    """
    if attention_mask is None:
        return None
    is_token = attention_mask[:, -length:].bool()
    return None if read_values() and bool(is_token.all()) else is_token


def has_gaps(is_token: Tensor, cache: Cache | None, layer_idx: int) -> bool:
    """Whether a convolution would see padding in place of a token.

    It would not if padding precedes all tokens, or follows them and nothing comes
    after. For a traced graph, which cannot decide this, the result is True.

    Args:
        is_token: Bool ``[B, L]``.
        cache: Keeps the last tokens for later steps, and has the previous ones.
        layer_idx: Number of a Mamba layer.
    """
    if not read_values():
        return True
    if cache is not None and cache.get_conv_state(layer_idx) is not None:
        return True
    ends = is_token[:, :-1] & ~is_token[:, 1:]
    if cache is None:
        # A run of tokens that ends before another one.
        ends = ends & is_token.flip(-1).cummax(-1).values.flip(-1)[:, 1:]
    return bool(ends.any())


def places(is_token: Tensor, before: int) -> Tensor:
    """New positions of tokens if padding is moved in front of them.

    Args:
        is_token: Bool ``[B, L]``.
        before: Number of tokens K before these that are not padding.

    Returns:
        Indices ``[B, K + L]``: a permutation of each row that keeps the tokens' order.
    """
    is_token = F.pad(is_token, (before, 0), value=True)
    padding = ~is_token
    return torch.where(
        is_token,
        is_token.cumsum(-1) + padding.sum(-1, keepdim=True),
        padding.cumsum(-1),
    ).sub(1)


def positions_from(attention_mask: Tensor, length: int) -> Tensor:
    """Positions ``[B, L]`` of the last tokens, not counting padding.

    Args:
        attention_mask: ``[B, M]`` of all tokens so far, 0 for padding.
        length: Number of tokens L.
    """
    positions = attention_mask.bool().cumsum(-1)[:, -length:] - 1
    return positions.clamp_min(0)
