"""Layers of a cache that transformers does not make by itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers.cache_utils import (
    Cache,
    CacheLayerMixin,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionLayer,
    StaticLayer,
)


class CountingLayer(LinearAttentionLayer, CacheLayerMixin):
    """A linear-attention layer of a cache that also counts its tokens.

    transformers asks a cache's first attention layer for the number of tokens. A pure
    Mamba model has none, so one of its layers has to provide the number.
    """

    supports_early_init = False

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        # A tensor, as in transformers' StaticLayer: a number that changes with every
        # token would make torch.compile recompile every step.
        self.cumulative_length = torch.tensor(0, dtype=torch.int64)

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs):
        """Not supported, because there are no keys and values."""
        raise NotImplementedError('a Mamba layer keeps no keys and values')

    def update_conv_state(
        self, conv_states: Tensor, *args, new_tokens: int | None = None, **kwargs
    ) -> Tensor:
        """See :class:`LinearAttentionLayer`.

        Args:
            conv_states: ``[B, D, L]``.
            new_tokens: The number of tokens they stand for; L if not given.
        """
        if new_tokens is None:
            new_tokens = conv_states.shape[-1]
        if self.cumulative_length.device != conv_states.device:
            self.cumulative_length = self.cumulative_length.to(conv_states.device)
        self.cumulative_length.add_(new_tokens)
        return super().update_conv_state(conv_states, *args, **kwargs)

    def get_seq_length(self) -> Tensor | int:
        """Number of tokens seen, as a tensor like transformers' static layers."""
        return self.cumulative_length if self.has_previous_state[0] else 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset that keys would have."""
        return query_length, 0

    def reset(self) -> None:
        super().reset()
        self.cumulative_length.zero_()


class KeyValueStates(LinearAttentionAndFullAttentionLayer):
    """States of a mixer, with keys and values of the heads that are attention.

    Attributes:
        is_token: Bool ``[B, T]``, False where one of the T keys is padding; None if
            there has been none.
    """

    is_token: Tensor | None = None

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        *args,
        is_token: Tensor | None = None,
        **kwargs,
    ) -> tuple[Tensor, Tensor]:
        """See :class:`DynamicLayer`.

        Args:
            key_states, value_states: ``[B, G, L, K]``.
            is_token: Bool ``[B, L]``, False for padding; None if there is none.
        """
        seen, (batch, _, length, _) = self.get_seq_length(), key_states.shape
        if is_token is not None or self.is_token is not None:
            parts = [(self.is_token, seen), (is_token, length)]
            everything = key_states.new_ones(batch, 1, dtype=torch.bool)
            self.is_token = torch.cat(
                [everything.expand(-1, n) if x is None else x for x, n in parts], dim=-1
            )
        return super().update(key_states, value_states, *args, **kwargs)

    def reset(self) -> None:
        self.is_token = None
        super().reset()

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """See :class:`LinearAttentionLayer`."""
        if self.is_token is not None:
            rows = beam_idx.to(self.is_token.device)
            self.is_token = self.is_token.index_select(0, rows)
        super().reorder_cache(beam_idx)

    # transformers' own change keys and values, and leave the states as they were.

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep rows of the batch, given by index or by a bool mask ``[B]``."""
        if indices.dtype == torch.bool:
            indices = indices.nonzero()[:, 0]
        if self.get_seq_length():
            self.reorder_cache(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row of the batch."""
        if self.get_seq_length():
            rows = torch.arange(len(self.keys), device=self.keys.device)
            self.reorder_cache(rows.repeat_interleave(repeats))


def make_room(cache: Cache | None, layers: Sequence[int]) -> None:
    """Give layers of an unused cache room for keys and values beside their states.

    Args:
        cache: Changed in place.
        layers: Layers whose mixers keep both.

    Raises:
        ValueError: Other layers have keys and values of a fixed length. transformers
            makes one mask for both, of one length.
    """
    if cache is not None and layers:
        others = (x for i, x in enumerate(cache.layers) if i not in set(layers))
        if any(isinstance(layer, StaticLayer) for layer in others):
            raise ValueError(
                'Layers that keep heads of attention beside layers of attention cannot '
                "use a static cache; leave out cache_implementation='static'."
            )
    for i in layers if cache is not None else ():
        layer = cache.layers[i] if i < len(cache.layers) else None
        if isinstance(layer, KeyValueStates) or not isinstance(
            layer, LinearAttentionLayer
        ):
            continue
        if not layer.has_previous_state[0]:
            cache.layers[i] = KeyValueStates()


def count_in(cache: Cache | None) -> None:
    """Make the first layer of an unused cache without attention count its tokens."""
    if cache is None or not cache.layers:
        return
    if any(isinstance(layer, CacheLayerMixin) for layer in cache.layers):
        return
    first = cache.layers[0]
    if isinstance(first, LinearAttentionLayer) and not first.has_previous_state[0]:
        cache.layers[0] = CountingLayer()
