"""Softmax attention with a window and sinks, for mixers that contain it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.cache_utils import Cache

from mmtransmamba.models.language.mixers.rotary import depends_on_length, frequencies


class WindowAttention:
    """Attention to the last tokens and to the first ones, with rotary q and k.

    For a :class:`DecoderMixer` with the sizes of :meth:`DecoderMixer.take_heads`. See
    :class:`~mmtransmamba.models.language.mixers.sliding_window.SlidingWindowMixer` for
    the definition and the state.

    Rotary frequencies that depend on the length (``dynamic``, ``longrope``) are those
    of the text, up to ``window + sinks`` tokens, since no token sees more.

    Attributes:
        window: Number of visible last tokens.
        sinks: Number of first tokens that are always visible.
    """

    config: Any
    window: int
    sinks: int

    @property
    def slots(self) -> int:
        """Number of tokens in the cache."""
        return self.window + self.sinks - 1

    def attend(
        self,
        q: Tensor,
        kv: Tensor,
        cache: Cache | None = None,
        padding_mask: Tensor | None = None,
        gaps: bool = True,
        state: Tensor | None = None,
        begins: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Attention along a sequence, see :meth:`DecoderMixer.recur`.

        Args:
            q: ``[B, L, H * K]``, not rotated.
            kv: Keys, not rotated, and values, ``[B, L, 2 * G * K]``.
        """
        length = q.shape[1]
        if begins is not None:
            return self._attend_packed(q, kv, begins), None
        steps = torch.arange(length, device=q.device)
        if state is None and padding_mask is None:
            taken = torch.ones_like(kv[..., 0], dtype=torch.bool)
            turns = self._turns(q.device, lambda: length)
            y = self._attend(q, kv, steps[None], turns, before=0)
            return y, self._keep(kv, taken) if cache is not None else None
        if padding_mask is None:
            padding_mask = torch.ones_like(kv[..., 0], dtype=torch.bool)
        # Tokens first, padding last: then indices are positions, equal for all rows.
        order = (~padding_mask).int().argsort(dim=-1, stable=True)
        q, kv, taken = _pick(q, order), _pick(kv, order), padding_mask.gather(1, order)
        before, positions = 0, steps[None]
        if state is not None:
            old = state[..., -1] > 0.5
            before, count = old.shape[1], old.sum(-1, keepdim=True)
            kv = torch.cat((state[..., :-1].to(kv.dtype), kv), dim=1)
            taken = torch.cat((old, taken), dim=1)
            together = (~taken).int().argsort(dim=-1, stable=True)
            kv, taken = _pick(kv, together), taken.gather(1, together)
            positions = count + steps
        turns = self._turns(q.device, lambda: taken.sum(-1).max())
        y = self._attend(q, kv, positions, turns, before)
        kept = self._keep(kv, taken) if cache is not None else None
        return _pick(y, order.argsort(dim=-1)), kept

    def _turns(
        self, device: torch.device, longest: Callable[[], Tensor | int]
    ) -> tuple[Tensor, float]:
        """Rotary frequencies, and the factor of cos and sin.

        Args:
            device: Of the frequencies.
            longest: Gives the tokens of the longest text; called if they depend on it.
        """
        length = None
        if depends_on_length(self.rotary_config):
            length = min(int(longest()), self.window + self.sinks)
        return frequencies(self.rotary_config, device, length)

    def _attend(
        self,
        q: Tensor,
        kv: Tensor,
        positions: Tensor,
        turns: tuple[Tensor, float],
        before: int,
    ) -> Tensor:
        """Attention in blocks, so that the cost is linear in the length.

        Args:
            q: ``[B, L, H * K]``.
            kv: ``[B, before + L, 2 * G * K]``; a token's index is its position.
            positions: Positions of the queries, ``[B or 1, L]``; each at most
                ``before`` more than its index.
            turns: See :meth:`_turns`.
            before: Number of slots that may precede the queries.
        """
        q = self._heads(q)
        k, v = (self._repeated(part) for part in kv.chunk(2, dim=-1))
        full, outputs = self.window + self.sinks, []
        for a in range(0, q.shape[1], full):
            b = min(a + full, q.shape[1])
            last = min(before + b, k.shape[1])
            first = 0
            if before + b > full:
                first = min(max(self.sinks, a - self.window + 1), last)
            places = torch.arange(first, last, device=q.device)
            keys, values = k[:, first:last], v[:, first:last]
            if first:
                sinks = torch.arange(min(self.sinks, first), device=q.device)
                places = torch.cat((sinks, places))
                keys = torch.cat((k[:, : len(sinks)], keys), dim=1)
                values = torch.cat((v[:, : len(sinks)], values), dim=1)
            outputs.append(
                self._softmax(
                    q[:, a:b],
                    keys,
                    values,
                    positions[:, a:b],
                    places[None],
                    turns,
                    far=before + b > full,
                )
            )
        return torch.cat(outputs, dim=1).flatten(-2)

    def _attend_packed(self, q: Tensor, kv: Tensor, begins: Tensor) -> Tensor:
        """Attention of rows of sequences, with the mask of all pairs of tokens."""
        steps = torch.arange(q.shape[1], device=q.device)[None].expand_as(begins)
        starts = torch.where(begins, steps, 0).cummax(-1).values
        k, v = (self._repeated(part) for part in kv.chunk(2, dim=-1))
        own = starts[:, :, None] == starts[:, None, :]
        positions = steps - starts
        turns = self._turns(q.device, lambda: positions.max() + 1)
        y = self._softmax(
            self._heads(q), k, v, positions, positions, turns, far=True, visible=own
        )
        return y.flatten(-2)

    def _softmax(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        positions: Tensor,
        places: Tensor,
        turns: tuple[Tensor, float],
        far: bool,
        visible: Tensor | None = None,
    ) -> Tensor:
        """Attention of some queries to some keys.

        Args:
            q: ``[B, L, H, K]``.
            k, v: ``[B, M, H, K]``.
            positions, places: Positions of queries and keys, ``[B or 1, L or M]``.
            turns: See :meth:`_turns`.
            far: Whether a sink's distance may exceed the limit.
            visible: Further mask, bool ``[B, L, M]``.

        Returns:
            ``[B, L, H, K]``.
        """
        distance = positions[:, :, None] - places[:, None, :]
        sink = places[:, None, :] < self.sinks
        seen = (distance >= 0) & ((distance < self.window) | sink)
        seen = (seen if visible is None else seen & visible)[:, None]
        keys = _rotate(k, places, turns).transpose(1, 2)
        near = _rotate(q, positions, turns).transpose(1, 2)
        dropout = self.config.attention_dropout if self.training else 0.0
        v = v.transpose(1, 2)
        if not far:
            y = F.scaled_dot_product_attention(
                near, keys, v, attn_mask=seen, dropout_p=dropout
            )
            return y.transpose(1, 2)
        capped = positions.clamp_max(self.slots)
        scores = torch.where(
            sink[:, None],
            _rotate(q, capped, turns).transpose(1, 2) @ keys.transpose(2, 3),
            near @ keys.transpose(2, 3),
        )
        scores = (scores.float() * self.head_dim**-0.5).masked_fill(
            ~seen, torch.finfo(torch.float32).min
        )
        weights = F.dropout(scores.softmax(-1), dropout).to(v.dtype)
        return (weights @ v).transpose(1, 2)

    def _keep(self, kv: Tensor, taken: Tensor) -> Tensor:
        """The state after some tokens: the sinks, then the last tokens.

        Args:
            kv: ``[B, T, 2 * G * K]``, with tokens before padding and empty slots.
            taken: Bool ``[B, T]``, True for tokens.
        """
        missing = max(self.slots - kv.shape[1], 0)
        kv = F.pad(kv, (0, 0, 0, missing))
        count = taken.sum(-1, keepdim=True)
        slots = torch.arange(self.slots, device=kv.device)
        dropped = (count - self.slots).clamp_min(0)
        places = slots + torch.where(slots < self.sinks, 0, dropped)
        return torch.cat(
            (_pick(kv, places), (places < count)[..., None].to(kv.dtype)), dim=-1
        )

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.head_dim))

    def _repeated(self, x: Tensor) -> Tensor:
        """Heads ``[B, T, H, K]`` of keys or values ``[B, T, G * K]``."""
        return self.repeated(self._heads(x))


def _rotate(x: Tensor, positions: Tensor, turns: tuple[Tensor, float]) -> Tensor:
    """Rotary embedding of heads ``[B, L, H, K]``, paired by halves."""
    rates, scale = turns
    angles = positions[:, :, None, None].float() * rates
    cos, sin = ((f(angles) * scale).to(x.dtype) for f in (torch.cos, torch.sin))
    half = len(rates)
    first, second = x[..., :half], x[..., half : 2 * half]
    rest = x[..., 2 * half :]
    turned = first * cos - second * sin, second * cos + first * sin
    return torch.cat((*turned, rest), dim=-1)


def _pick(x: Tensor, places: Tensor) -> Tensor:
    """Tokens ``[B, M, C]`` of ``[B, L, C]`` at places ``[B, M]``."""
    return x.gather(1, places[..., None].expand(-1, -1, x.shape[-1]))
