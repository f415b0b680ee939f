"""MambaInLlama's mixer: Mamba-1 with the projections of an attention."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from transformers.cache_utils import Cache

from mmtransmamba.models.language.mixers.base import (
    CONV_ACTIVATIONS,
    float32_parameter,
)
from mmtransmamba.models.language.mixers.causal_conv import CausalConv
from mmtransmamba.models.language.mixers.inits import Init
from mmtransmamba.models.language.mixers.mamba import (
    SelectiveScanMixer,
    StepSizeProjection,
)
from mmtransmamba.registry import DECODER_MIXERS


@DECODER_MIXERS.register_module('MambaInLlama')
class MambaInLlamaMixer(SelectiveScanMixer):
    r"""Mamba-1 whose x, B and C are shaped as v, k and q (arXiv:2408.15237).

    With x, B, C and :math:`\Delta` from projections of the layer's input, x through the
    causal convolution, for each channel d and state n

    .. math::
        h_t = e^{-\Delta_t e^{A}} h_{t-1} + \Delta_t B_t x_t, \qquad
        y_t = \sum_n C_{t,n} h_{t,n} + D x_t

    then the gate :math:`\mathrm{SiLU}(\mathrm{z\_proj})` and ``out_proj``. Channels are
    grouped by ``d_state``, each group with its own B and C. Shared groups of x and B
    (grouped-query attention) are repeated before the convolution.

    Args:
        config, layer_idx: See :class:`DecoderMixer`; :math:`\Delta` has the rank
            ``hidden_size / 16``.
        d_conv: Taps of the causal convolution.
        conv_activation: ``'silu'`` or ``'identity'``, after the convolution.
        d_state: States per channel; divides the width of the key-value heads.

    Raises:
        ValueError: ``d_state`` does not divide the width of the key-value heads.
    """

    choices = {'conv_activation': CONV_ACTIVATIONS}
    inits = {
        'vkq': Init(dict(d_conv=4), from_attention=True),
        'scratch': Init(),
    }
    attention = {
        'x_proj': ('v_proj',),
        'B_proj': ('k_proj',),
        'C_proj': ('q_proj',),
        'out_proj': ('o_proj', 'dense'),
    }
    follows = ('in_bias', 'out_bias')
    own_init = ('dt_proj',)
    groups = {'qkv': ('x_proj', 'B_proj', 'C_proj'), 'out_proj': ('out_proj',)}
    float32 = ('A_log', 'D', 'dt_proj.bias')
    unquantized = ('conv1d', 'dt_down', 'dt_proj')
    adapters = {'q_proj': ('C_proj',), 'k_proj': ('B_proj',), 'v_proj': ('x_proj',)}

    def __init__(
        self,
        config: Any,
        layer_idx: int,
        *,
        d_conv: int = 4,
        conv_activation: str = 'silu',
        d_state: int = 16,
        in_bias: bool = False,
        out_bias: bool = False,
    ) -> None:
        super().__init__(config, layer_idx)
        hidden = config.hidden_size
        self.take_heads(config)
        if self.d_groups % d_state:
            raise ValueError(
                f'mixer: d_state={d_state} of MambaInLlama must divide the width of '
                f'the key-value heads, {self.d_groups}.'
            )
        self.d_state = d_state
        self.conv_activation = conv_activation
        self.dt_rank = math.ceil(hidden / 16)
        self.x_proj = nn.Linear(hidden, self.d_groups, bias=in_bias)
        self.B_proj = nn.Linear(hidden, self.d_groups, bias=in_bias)
        self.C_proj = nn.Linear(hidden, self.d_inner, bias=in_bias)
        self.z_proj = nn.Linear(hidden, self.d_inner, bias=False)
        self.dt_down = nn.Linear(hidden, self.dt_rank, bias=False)
        self.dt_proj = StepSizeProjection(self.dt_rank, self.d_inner)
        self.dt_proj.bias = float32_parameter(self.d_inner)
        self.conv1d = CausalConv(self.d_inner, d_conv)
        self.A_log = float32_parameter(self.d_inner, d_state)
        self.D = float32_parameter(self.d_inner)
        self.out_proj = nn.Linear(self.d_inner, hidden, bias=out_bias)
        self.reset_parameters()

    def _expanded(self, x: Tensor) -> Tensor:
        """Groups of ``d_state`` channels, once per group that shares them."""
        groups = x.unflatten(-1, (-1, self.d_state))
        repeats = self.d_inner // self.d_groups
        return groups.repeat_interleave(repeats, dim=-2) if repeats > 1 else groups

    def mix(self, hidden_states: Tensor, recur: Callable[..., Tensor]) -> Tensor:
        dt = F.softplus(self.dt_proj(self.dt_down(hidden_states)))
        B = self._expanded(self.B_proj(hidden_states)).flatten(-2)
        y = recur(
            self._expanded(self.x_proj(hidden_states)).flatten(-2),
            dt,
            B,
            self.C_proj(hidden_states),
        )
        z = self.z_proj(hidden_states)
        return self.out_proj(y.to(z.dtype) * F.silu(z))

    def recur(
        self,
        x: Tensor,
        dt: Tensor,
        B: Tensor,
        C: Tensor,
        cache: Cache | None = None,
        padding_mask: Tensor | None = None,
        gaps: bool = True,
        state: Tensor | None = None,
        begins: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        x = self.convolve(x, cache, padding_mask, gaps, begins)
        return self._recurrence(x, dt, B, C, padding_mask, state, begins)

    def _grouped(self, part: Tensor) -> Tensor:
        return part.unflatten(-1, (-1, self.d_state))
