"""A mixer of Kimi Delta Attention with the shapes of the attention it replaces."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtransmamba.models.language.mixers.base import float32_parameter
from mmtransmamba.models.language.mixers.gated_delta_net import (
    CALIBRATE,
    MIMIC,
    GatedDeltaNetMixer,
)
from mmtransmamba.models.language.mixers.inits import ZEROS, Fill, Init
from mmtransmamba.ops import kda, kda_step
from mmtransmamba.registry import DECODER_MIXERS

CLOSED = -4.0
"""Bias of a gate that starts almost closed, at 0.018."""


@DECODER_MIXERS.register_module('KDA')
class KDAMixer(GatedDeltaNetMixer):
    r"""Kimi Delta Attention (arXiv:2510.26692) with the attention's q, k, v and o.

    Like :class:`GatedDeltaNetMixer`, with a decay for every key channel,
    :math:`g = -e^{A} \mathrm{softplus}(\mathrm{dt\_proj} + \mathrm{dt\_bias})`, and the
    gate :math:`\sigma(\mathrm{z\_proj})`; ``dt_proj`` and ``z_proj`` are products of
    two matrices of rank K.

    ``rope`` must be False: channels that are rotated into each other decay differently,
    so the product of q and k would depend on the positions themselves, not only on
    their difference.

    Args:
        config, layer_idx, **fields: See :class:`GatedDeltaNetMixer`.
    """

    choices = GatedDeltaNetMixer.choices | {'rope': (False,)}
    inits = {
        'mimic': Init(
            dict(d_conv=2),
            from_attention=True,
            fills=MIMIC
            | {
                'dt_proj.1.weight': ZEROS,
                'z_proj.1.weight': ZEROS,
                'z_proj.1.bias': Fill(
                    'almost closed', lambda fresh, *_: torch.full_like(fresh, CLOSED)
                ),
            },
        ),
        'vkq': Init(from_attention=True),
        'calibrate': CALIBRATE,
        'scratch': Init(),
    }
    gate_activation = 'sigmoid'
    rule = staticmethod(kda)
    step = staticmethod(kda_step)

    def make_gates(self, hidden: int) -> None:
        """Add ``dt_bias`` and the projections of decay and output gate."""
        self.dt_bias = float32_parameter(self.d_inner)
        self.dt_proj = _low_rank(hidden, self.head_dim, self.d_inner, bias=False)
        self.z_proj = _low_rank(hidden, self.head_dim, self.d_inner, bias=True)

    def calibrate_gate(self, constant: Tensor) -> None:
        """Make the output gate constant, 1/2."""
        self.z_proj[1].weight.zero_()
        self.z_proj[1].bias.zero_()

    def log_decays(self, hidden_states: Tensor) -> Tensor:
        """g, ``[B, L, H * K]`` in float32."""
        dt = F.softplus(self.dt_proj(hidden_states).float() + self.dt_bias.float())
        return -self.A_log.float().exp().repeat_interleave(self.head_dim) * dt

    def scan(self, q, k, v, g, beta, state, begins=None):
        g = g.unflatten(-1, (self.num_heads, self.head_dim))
        return super().scan(q, k, v, g, beta, state, begins)


def _low_rank(inputs: int, rank: int, outputs: int, bias: bool) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs, bias=bias)
    )
