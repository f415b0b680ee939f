"""The discrete Mamba-2 mixer of Phi-Mamba and Llamba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers.cache_utils import Cache

from mmtransmamba.models.language.mixers.base import (
    CONV_ACTIVATIONS,
    DecoderMixer,
    float32_parameter,
    init_conv,
)
from mmtransmamba.models.language.mixers.causal_conv import CausalConv
from mmtransmamba.models.language.mixers.inits import Init
from mmtransmamba.models.language.packing import restart
from mmtransmamba.ops import ssd_scan, ssd_step
from mmtransmamba.registry import DECODER_MIXERS

_SMALLEST = 1e-20
"""Below it, a step size is replaced, which is a divisor and could be 0."""


@DECODER_MIXERS.register_module('DiscreteMamba2')
class DiscreteMamba2Mixer(DecoderMixer):
    r"""Mamba-2 whose input is not scaled by a step size (MOHAWK, arXiv:2408.10189).

    With :math:`[x, B, C]` from ``x_proj``, ``B_proj``, ``C_proj`` through the causal
    convolution, and for each head :math:`a` from ``decay_proj``,

    .. math::
        h_t = e^{-\mathrm{softplus}(a_t)} h_{t-1} + x_t B_t^T, \qquad
        y_t = h_t C_t + D x_t

    then the gate :math:`\mathrm{SiLU}(\mathrm{z\_proj})`, which has a bias, and
    ``out_proj``; there is no norm. Heads and head size are the attention's. x, B and C
    have all heads, also where the attention shares its key-value heads.

    Args:
        config, layer_idx: See :class:`DecoderMixer`.
        d_conv: Taps of the causal convolution.
        conv_activation: ``'silu'`` or ``'identity'``, after the convolution.
        d_state: Channels of B and C per head.
        in_bias, out_bias: Whether the projections have biases.
    """

    choices = {'conv_activation': CONV_ACTIVATIONS}
    follows = ('in_bias', 'out_bias')
    inits = {'scratch': Init()}
    groups = {'qkv': ('x_proj', 'B_proj', 'C_proj'), 'out_proj': ('out_proj',)}
    float32 = ('D',)
    unquantized = ('conv1d', 'decay_proj')
    adapters = {'q_proj': ('C_proj',), 'k_proj': ('B_proj',), 'v_proj': ('x_proj',)}

    def __init__(
        self,
        config: Any,
        layer_idx: int,
        *,
        d_conv: int = 4,
        conv_activation: str = 'identity',
        d_state: int = 64,
        in_bias: bool = False,
        out_bias: bool = False,
    ) -> None:
        super().__init__(config, layer_idx)
        self.conv_activation = conv_activation
        self.d_state = d_state
        hidden = config.hidden_size
        self.take_heads(config)
        self.d_keys = self.num_heads * d_state
        self.x_proj = nn.Linear(hidden, self.d_inner, bias=in_bias)
        self.B_proj = nn.Linear(hidden, self.d_keys, bias=in_bias)
        self.C_proj = nn.Linear(hidden, self.d_keys, bias=in_bias)
        self.decay_proj = nn.Linear(hidden, self.num_heads, bias=False)
        self.z_proj = nn.Linear(hidden, self.d_inner)
        self.conv1d = CausalConv(self.d_inner + 2 * self.d_keys, d_conv)
        self.D = float32_parameter(self.num_heads)
        self.out_proj = nn.Linear(self.d_inner, hidden, bias=out_bias)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """D one, and the convolution as in PyTorch."""
        init_conv(self.conv1d)
        init.ones_(self.D)

    def mix(self, hidden_states: Tensor, recur: Callable[..., Tensor]) -> Tensor:
        xBC = torch.cat(
            [part(hidden_states) for part in (self.x_proj, self.B_proj, self.C_proj)],
            dim=-1,
        )
        y = recur(xBC, F.softplus(self.decay_proj(hidden_states).float()))
        y = y * F.silu(self.z_proj(hidden_states).to(y.dtype))
        return self.out_proj(y.to(hidden_states.dtype))

    def recur(
        self,
        xBC: Tensor,
        decay: Tensor,
        cache: Cache | None = None,
        padding_mask: Tensor | None = None,
        gaps: bool = True,
        state: Tensor | None = None,
        begins: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        xBC = self.convolve(xBC, cache, padding_mask, gaps, begins)
        x, B, C = (
            part.unflatten(-1, (self.num_heads, -1)).float()
            for part in xBC.split((self.d_inner, self.d_keys, self.d_keys), dim=-1)
        )
        # The scan multiplies its input by the step size.
        decay = decay.clamp_min(_SMALLEST)
        taken = x / decay[..., None]
        if padding_mask is not None:
            decay = decay.masked_fill(~padding_mask[..., None], 0)
        A = -torch.ones(self.num_heads, device=x.device)
        if begins is not None:
            taken, decay = restart(taken, decay, A, begins)
        if state is not None and x.shape[1] == 1:
            step = (part[:, 0] for part in (taken, decay))
            y, state = ssd_step(state, *step, A, B[:, 0], C[:, 0])
            y = y[:, None]
        else:
            y, state = ssd_scan(taken, decay, A, B, C, initial_state=state)
        y = y + self.D.float()[:, None] * x
        return y.flatten(-2), state
