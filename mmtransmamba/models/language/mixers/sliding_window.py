"""Attention with a window and sinks as a mixer, a baseline for linear mixers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.cache_utils import Cache
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from mmtransmamba.models.language.mixers.base import DecoderMixer
from mmtransmamba.models.language.mixers.inits import Init
from mmtransmamba.registry import DECODER_MIXERS


@DECODER_MIXERS.register_module('SlidingWindow')
class SlidingWindowMixer(DecoderMixer):
    r"""Softmax attention to the last tokens and to the first ones, with rotary q, k.

    A token sees the last ``window`` tokens, including itself, and the first ``sinks``
    tokens of its sequence, as in StreamingLLM (arXiv:2309.17453). The projections are
    those of the replaced attention, so the output equals the teacher's for sequences of
    at most ``window`` tokens.

    Positions count the tokens of the sequence, excluding padding. The distance to a
    sink is limited to that at which the window is just full, so that no distance
    exceeds ``window + sinks - 1``, whatever the length of the sequence.

    The cache keeps ``window + sinks - 1`` keys (not rotated) and values for each
    sequence: ``[B, window + sinks - 1, 2 G K + 1]`` with G key-value heads of size K;
    the last channel is 1 for a used slot.

    Args:
        config, layer_idx: See :class:`DecoderMixer`.
        window: Number of visible last tokens, positive.
        sinks: Number of first tokens of a sequence that all of its tokens see,
            positive.
        in_bias, out_bias: Whether the projections have biases.
        qk_norm: Whether k and q are normalised as in Qwen3.
    """

    follows = ('in_bias', 'out_bias', 'qk_norm')
    inits = {
        'mimic': Init(from_attention=True),
        'vkq': Init(from_attention=True),
        'scratch': Init(),
    }
    attention = {
        'q_proj': ('q_proj',),
        'k_proj': ('k_proj',),
        'v_proj': ('v_proj',),
        'q_norm': ('q_norm',),
        'k_norm': ('k_norm',),
        'out_proj': ('o_proj', 'dense'),
    }
    groups = {
        'qkv': ('q_proj', 'k_proj', 'v_proj', 'q_norm', 'k_norm'),
        'out_proj': ('out_proj',),
    }

    def __init__(
        self,
        config: Any,
        layer_idx: int,
        *,
        window: int = 512,
        sinks: int = 4,
        in_bias: bool = False,
        out_bias: bool = False,
        qk_norm: bool = False,
    ) -> None:
        super().__init__(config, layer_idx)
        self.window, self.sinks = window, sinks
        hidden = config.hidden_size
        self.take_heads(config)
        self.q_proj = nn.Linear(hidden, self.d_inner, bias=in_bias)
        self.k_proj = nn.Linear(hidden, self.d_groups, bias=in_bias)
        self.v_proj = nn.Linear(hidden, self.d_groups, bias=in_bias)
        self.q_norm = self.k_norm = None
        if qk_norm:
            self.q_norm = nn.RMSNorm(self.head_dim, eps=config.rms_norm_eps)
            self.k_norm = nn.RMSNorm(self.head_dim, eps=config.rms_norm_eps)
        self.out_proj = nn.Linear(self.d_inner, hidden, bias=out_bias)

    def reset_parameters(self) -> None:
        """Do nothing: the decoder initialises linear layers and norms."""

    @property
    def slots(self) -> int:
        """Number of tokens in the cache."""
        return self.window + self.sinks - 1

    def mix(self, hidden_states: Tensor, recur: Callable[..., Tensor]) -> Tensor:
        q, k = self.q_proj(hidden_states), self.k_proj(hidden_states)
        if self.q_norm is not None:
            q = self.q_norm(self._heads(q)).flatten(-2)
            k = self.k_norm(self._heads(k)).flatten(-2)
        kv = torch.cat((k, self.v_proj(hidden_states)), dim=-1)
        return self.out_proj(recur(q, kv))

    def recur(
        self,
        q: Tensor,
        kv: Tensor,
        cache: Cache | None = None,
        padding_mask: Tensor | None = None,
        gaps: bool = True,
        state: Tensor | None = None,
        begins: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        length = q.shape[1]
        if begins is not None:
            return self._attend_packed(q, kv, begins), None
        steps = torch.arange(length, device=q.device)
        if state is None and padding_mask is None:
            y = self._attend(q, kv, steps[None], before=0)
            taken = torch.ones_like(kv[..., 0], dtype=torch.bool)
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
        y = self._attend(q, kv, positions, before)
        kept = self._keep(kv, taken) if cache is not None else None
        return _pick(y, order.argsort(dim=-1)), kept

    def _attend(self, q: Tensor, kv: Tensor, positions: Tensor, before: int) -> Tensor:
        """Attention in blocks, so that the cost is linear in the length.

        Args:
            q: ``[B, L, H * K]``.
            kv: ``[B, before + L, 2 * G * K]``; a token's index is its position.
            positions: Positions of the queries, ``[B or 1, L]``; each at most
                ``before`` more than its index.
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
        y = self._softmax(
            self._heads(q), k, v, positions, positions, far=True, visible=own
        )
        return y.flatten(-2)

    def _softmax(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        positions: Tensor,
        places: Tensor,
        far: bool,
        visible: Tensor | None = None,
    ) -> Tensor:
        """Attention of some queries to some keys.

        Args:
            q: ``[B, L, H, K]``.
            k, v: ``[B, M, H, K]``.
            positions, places: Positions of queries and keys, ``[B or 1, L or M]``.
            far: Whether a sink's distance may exceed the limit.
            visible: Further mask, bool ``[B, L, M]``.

        Returns:
            ``[B, L, H, K]``.
        """
        distance = positions[:, :, None] - places[:, None, :]
        sink = places[:, None, :] < self.sinks
        seen = (distance >= 0) & ((distance < self.window) | sink)
        seen = (seen if visible is None else seen & visible)[:, None]
        keys = self._rotate(k, places).transpose(1, 2)
        near = self._rotate(q, positions).transpose(1, 2)
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
            self._rotate(q, capped).transpose(1, 2) @ keys.transpose(2, 3),
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

    def _rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        """Rotary embedding of heads ``[B, L, H, K]``, paired by halves."""
        frequencies, scale = _frequencies(self.config, x.device)
        angles = positions[:, :, None, None].float() * frequencies
        cos, sin = ((f(angles) * scale).to(x.dtype) for f in (torch.cos, torch.sin))
        half = len(frequencies)
        first, second = x[..., :half], x[..., half : 2 * half]
        return torch.cat(
            (
                first * cos - second * sin,
                second * cos + first * sin,
                x[..., 2 * half :],
            ),
            dim=-1,
        )


def _frequencies(config: Any, device: torch.device) -> tuple[Tensor, float]:
    """Frequencies of a decoder's rotary embedding, and the factor of cos and sin."""
    rope = config.rope_parameters
    kind = rope.get('rope_type', 'default')
    if kind != 'default':
        return ROPE_INIT_FUNCTIONS[kind](config, device)
    heads = config.num_attention_heads
    size = getattr(config, 'head_dim', None) or config.hidden_size // heads
    size = int(size * rope.get('partial_rotary_factor', 1.0))
    steps = torch.arange(0, size, 2, dtype=torch.float32, device=device)
    return rope['rope_theta'] ** (-steps / size), 1.0


def _pick(x: Tensor, places: Tensor) -> Tensor:
    """Tokens ``[B, M, C]`` of ``[B, L, C]`` at places ``[B, M]``."""
    return x.gather(1, places[..., None].expand(-1, -1, x.shape[-1]))
