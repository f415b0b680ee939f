"""Tokens that are padding: a recurrence has to pass over them.

Attention hides padding with a mask. A recurrence keeps its state there, and a causal
convolution has to see the tokens before as if there were none in between.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.cache_utils import Cache


def read_values() -> bool:
    """Whether a tensor's values may be asked for; a graph that is traced has none."""
    return not (torch.compiler.is_compiling() or torch.jit.is_tracing())


def local_padding(attention_mask: Tensor | None, length: int) -> Tensor | None:
    """Which of the last tokens are no padding.

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
    """Whether a convolution would see padding where it has to see a token.

    Not if padding is in front of all tokens, or behind them and nothing follows. A
    graph that is traced cannot tell and is told yes.

    Args:
        is_token: Bool ``[B, L]``.
        cache: Keeps the last tokens for what follows, and has those before.
        layer_idx: Number of a Mamba layer.
    """
    if not read_values():
        return True
    if cache is not None and cache.get_conv_state(layer_idx) is not None:
        return True
    ends = is_token[:, :-1] & ~is_token[:, 1:]
    if cache is None:
        # A run of tokens that ends in front of another.
        ends = ends & is_token.flip(-1).cummax(-1).values.flip(-1)[:, 1:]
    return bool(ends.any())


def places(is_token: Tensor, before: int) -> Tensor:
    """Where tokens go if padding is moved in front of them.

    Args:
        is_token: Bool ``[B, L]``.
        before: Number of tokens K that lie before these and are no padding.

    Returns:
        Places ``[B, K + L]``: a permutation of each row that keeps the tokens' order.
    """
    is_token = F.pad(is_token, (before, 0), value=True)
    padding = ~is_token
    return torch.where(
        is_token,
        is_token.cumsum(-1) + padding.sum(-1, keepdim=True),
        padding.cumsum(-1),
    ).sub(1)


def positions_from(attention_mask: Tensor, length: int) -> Tensor:
    """Positions ``[B, L]`` of the last tokens if padding has none.

    Args:
        attention_mask: ``[B, M]`` of all tokens so far, 0 for padding.
        length: Number of tokens L.
    """
    positions = attention_mask.bool().cumsum(-1)[:, -length:] - 1
    return positions.clamp_min(0)
