"""Bidirectional Mamba-2 with the shapes of the attention it replaces."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import initialization as init

from mmtransmamba.models.language.mixers.base import float32_parameter
from mmtransmamba.models.language.mixers.inits import ZEROS, Init
from mmtransmamba.models.vision.mixers.base import CALIBRATE, MIMIC, EncoderMixer
from mmtransmamba.ops import ssd_both_ways
from mmtransmamba.registry import ENCODER_MIXERS


@ENCODER_MIXERS.register_module('Mamba2')
class Mamba2EncoderMixer(EncoderMixer):
    r"""SSD (arXiv:2405.21060) in both directions, with x, B, C in place of v, k, q.

    :math:`y_t = \sum_s M_{ts} x_s + D x_t` with the matrices M of
    :func:`~mmtransmamba.ops.ssd_both_ways`, whose decays are data-dependent. As they
    approach 1, M becomes linear attention over all tokens.

    Args:
        config, layer_idx, activation, norm, norm_eps, gate, in_bias, out_bias: See
            :class:`EncoderMixer`.
        skip: Whether D exists.
    """

    projections = ('x_proj', 'B_proj', 'C_proj')
    inits = {
        'mimic': Init(from_attention=True, fills=MIMIC | {'D': ZEROS}),
        'vkq': Init(from_attention=True),
        'calibrate': Init(
            from_attention=True, fills=CALIBRATE | {'D': ZEROS}, calibrated=True
        ),
        'scratch': Init(),
    }
    attention = {
        'x_proj': ('v_proj',),
        'B_proj': ('k_proj',),
        'C_proj': ('q_proj',),
        'out_proj': ('o_proj', 'out_proj'),
    }
    groups = {'qkv': projections, 'out_proj': ('out_proj',)}
    float32 = ('A_log', 'dt_bias', 'D')

    def __init__(
        self,
        config: Any,
        layer_idx: int,
        *,
        activation: str = 'silu',
        norm: str = 'per_head',
        norm_eps: float = 1e-5,
        gate: bool = True,
        skip: bool = True,
        in_bias: bool = True,
        out_bias: bool = True,
    ) -> None:
        super().__init__(
            config, layer_idx, activation, norm, norm_eps, gate, in_bias, out_bias
        )
        self.D = float32_parameter(self.num_heads) if skip else None
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """See :meth:`EncoderMixer.reset_parameters`; D is one."""
        super().reset_parameters()
        if self.D is not None:
            init.ones_(self.D)

    def sweep(self, v: Tensor, k: Tensor, q: Tensor, hidden_states: Tensor) -> Tensor:
        y = ssd_both_ways(v, self.step_sizes(hidden_states), self.rates(), k, q)
        if self.D is None:
            return y
        # Half of it in each sweep, which are added later.
        own = 0.5 * self.D.float()[:, None] * v
        return y + own.unsqueeze(2)
