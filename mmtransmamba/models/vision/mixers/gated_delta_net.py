"""Bidirectional Gated DeltaNet with the shapes of the attention it replaces."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mmtransmamba.models.language.mixers.inits import ZEROS, Init
from mmtransmamba.models.vision.mixers.base import (
    CALIBRATE,
    MIMIC,
    SWEEPS,
    EncoderMixer,
)
from mmtransmamba.ops import delta_rule_both_ways
from mmtransmamba.registry import ENCODER_MIXERS

_HALF = {'beta_proj.weight': ZEROS}
"""Strengths of 1/2 without input dependence."""


@ENCODER_MIXERS.register_module('GatedDeltaNet')
class GatedDeltaNetEncoderMixer(EncoderMixer):
    r"""Gated DeltaNet (arXiv:2412.06464) in both directions, with the attention's v, k,
    q and o.

    See :func:`~mmtransmamba.ops.delta_rule_both_ways`; :math:`g = A \Delta` and
    :math:`\beta = \sigma(\mathrm{beta\_proj})`, for each head and sweep.

    Args:
        config, layer_idx, activation, norm, norm_eps, gate, in_bias, out_bias: See
            :class:`EncoderMixer`.
    """

    projections = ('v_proj', 'k_proj', 'q_proj')
    inits = {
        'mimic': Init(from_attention=True, fills=MIMIC | _HALF),
        'vkq': Init(from_attention=True),
        'calibrate': Init(
            from_attention=True, fills=CALIBRATE | _HALF, calibrated=True
        ),
        'scratch': Init(),
    }
    attention = {
        'v_proj': ('v_proj',),
        'k_proj': ('k_proj',),
        'q_proj': ('q_proj',),
        'out_proj': ('o_proj', 'out_proj'),
    }
    groups = {'qkv': projections, 'out_proj': ('out_proj',)}
    unquantized = ('dt_proj', 'beta_proj')

    def __init__(
        self,
        config: Any,
        layer_idx: int,
        *,
        activation: str = 'silu',
        norm: str = 'per_head',
        norm_eps: float = 1e-5,
        gate: bool = True,
        in_bias: bool = True,
        out_bias: bool = True,
    ) -> None:
        super().__init__(
            config, layer_idx, activation, norm, norm_eps, gate, in_bias, out_bias
        )
        heads = SWEEPS * self.num_heads
        self.beta_proj = nn.Linear(config.hidden_size, heads, bias=False)
        self.reset_parameters()

    def sweep(self, v: Tensor, k: Tensor, q: Tensor, hidden_states: Tensor) -> Tensor:
        g = self.rates() * self.step_sizes(hidden_states)
        beta = self.beta_proj(hidden_states).float().unflatten(-1, (SWEEPS, -1))
        return delta_rule_both_ways(q, k, v, g, beta.sigmoid())
