"""Attention with a window and sinks as a mixer, a baseline for linear mixers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache

from mmtransmamba.models.language.mixers.base import DecoderMixer
from mmtransmamba.models.language.mixers.inits import Init
from mmtransmamba.models.language.mixers.window_attention import WindowAttention
from mmtransmamba.registry import DECODER_MIXERS


@DECODER_MIXERS.register_module('SlidingWindow')
class SlidingWindowMixer(WindowAttention, DecoderMixer):
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
        return self.attend(q, kv, cache, padding_mask, gaps, state, begins)
