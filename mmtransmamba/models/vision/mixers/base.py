"""Base of the mixers of hybrid vision encoders."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from mmtransmamba.models.language.arguments import known_arguments
from mmtransmamba.models.language.mixers.attention_mixer import AttentionMixer
from mmtransmamba.models.language.mixers.base import (
    float32_parameter,
    new_step_sizes,
    step_sizes_of,
)
from mmtransmamba.models.language.mixers.inits import ZEROS, Fill
from mmtransmamba.models.language.mixers.mamba2 import A_RANGE, HeadRMSNorm
from mmtransmamba.models.taps import DirectionFeature, DirectionTap, patch_index
from mmtransmamba.ops import scan_order

SWEEPS = 2
OPEN = 1.278464542761074
"""Where SiLU is 1, so that a gate leaves its input unchanged."""

_OF_THE_TEXT = ('use_cache', 'cache_position')
"""Arguments for the decoder that a LLaVA passes on to its tower as well."""

HALF_LIVES = (16, 256)
"""Tokens after which half of a state is left, in the first and in the last head."""


def _half_lives(fresh: Tensor, config: Any, generator: torch.Generator) -> Tensor:
    first, last = (math.log(tokens) for tokens in HALF_LIVES)
    heads = fresh.shape[-1]
    tokens = torch.linspace(first, last, heads, dtype=torch.float64).exp()
    return step_sizes_of(tokens).expand(fresh.shape).to(fresh)


CALIBRATE = {
    'dt_proj.weight': ZEROS,
    'A_log': Fill('zeros, A = -1', lambda fresh, *_: torch.zeros_like(fresh)),
    'z_proj.weight': ZEROS,
    'z_proj.bias': Fill(
        'where SiLU is 1', lambda fresh, *_: torch.full_like(fresh, OPEN)
    ),
}
"""Values without input dependence: decays and gates, which start open."""

MIMIC = CALIBRATE | {
    'dt_bias': Fill(
        f'half-lives of {HALF_LIVES[0]} to {HALF_LIVES[1]} tokens', _half_lives
    ),
}
"""The same, with decays that need no images."""


class EncoderMixer(AttentionMixer):
    r"""A mixer of all tokens of an image, in two sweeps with shared projections.

    v, k and q come from linear layers with the shapes of the attention's. k and q get
    the rotary positions of the attention, if it has any, and an activation. A subclass
    runs a recurrence from the first token to the last one and back
    (:mod:`mmtransmamba.ops.both_ways`), with a decay for each head and sweep:
    :math:`\Delta = \mathrm{softplus}(\mathrm{dt\_proj} + \mathrm{dt\_bias})`,
    :math:`A = -e^{\mathrm{A\_log}}`. The sum of the sweeps is normalised for each head,
    gated by :math:`\mathrm{SiLU}(\mathrm{z\_proj})` and projected by ``out_proj``.

    It is registered in :data:`~mmtransmamba.registry.ENCODER_MIXERS`.

    Args:
        config: The encoder's config, with the fields of
            :class:`~mmtransmamba.models.vision.config.HybridEncoderFields`.
        layer_idx: Index of the layer.
        activation: ``'silu'`` or ``'identity'``, of k and q.
        norm: ``'per_head'`` or ``'none'``.
        norm_eps: Epsilon of the norm.
        gate: Whether there is a gate.
        in_bias: Whether the layers of v, k and q have biases.
        out_bias: Whether ``out_proj`` has a bias.

    Attributes:
        projections: Names of the layers of v, k and q.
        grid: Rows and columns of the patches, which whoever listens to the
            ``direction_tap`` has to set.
    """

    projections: ClassVar[tuple[str, str, str]]
    choices = {'activation': ('silu', 'identity'), 'norm': ('per_head', 'none')}
    follows = ('in_bias', 'out_bias')
    own_init = ('dt_proj',)
    float32 = ('A_log', 'dt_bias')
    unquantized = ('dt_proj',)

    def __init__(
        self,
        config: Any,
        layer_idx: int,
        activation: str,
        norm: str,
        norm_eps: float,
        gate: bool,
        in_bias: bool,
        out_bias: bool,
    ) -> None:
        super().__init__(config, layer_idx)
        self.take_heads(config)
        self.activation = activation
        hidden = config.hidden_size
        for name in self.projections:
            setattr(self, name, nn.Linear(hidden, self.d_inner, bias=in_bias))
        self.dt_proj = nn.Linear(hidden, SWEEPS * self.num_heads, bias=False)
        self.z_proj = nn.Linear(hidden, self.d_inner) if gate else None
        self.dt_bias = float32_parameter(SWEEPS, self.num_heads)
        self.A_log = float32_parameter(SWEEPS, self.num_heads)
        self.norm = None
        if norm == 'per_head':
            self.norm = HeadRMSNorm(self.d_inner, self.head_dim, eps=norm_eps)
        self.out_proj = nn.Linear(self.d_inner, hidden, bias=out_bias)
        self.direction_tap = DirectionTap(self.d_inner, SWEEPS)
        self.grid: tuple[int, int] | None = None

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Like Mamba-2: A uniform in [1, 16], dt log-uniform."""
        init.copy_(self.A_log, torch.empty_like(self.A_log).uniform_(*A_RANGE).log())
        bias = new_step_sizes(self.dt_bias.numel(), self.dt_bias.device)
        init.copy_(self.dt_bias, bias.view_as(self.dt_bias))
        if self.norm is not None:
            init.ones_(self.norm.weight)

    @torch.no_grad()
    def calibrate(self, distances: Tensor, constant: Tensor) -> None:
        """Set decays from the mean distances ``[2, H]`` that the two sweeps span."""
        self.dt_bias.copy_(step_sizes_of(distances))

    @known_arguments('is_causal', 'interpolate_pos_encoding', *_OF_THE_TEXT)
    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        **_: Any,
    ) -> tuple[Tensor, None]:
        """Mix tokens ``[B, L, C]``.

        Args:
            hidden_states: The layer's normalised input.
            attention_mask: Not read: the encoder refuses masks that hide tokens.
            position_embeddings: Cosines and sines ``[L', P]`` of the rotary positions
                of the last L' tokens.

        Returns:
            Mixed tokens ``[B, L, C]``, and None in place of attention weights.

        Raises:
            TypeError: An argument is unknown.
        """
        v, k, q = (
            getattr(self, name)(hidden_states).unflatten(-1, (-1, self.head_dim))
            for name in self.projections
        )
        if position_embeddings is not None:
            k, q = (rotated(x, *position_embeddings) for x in (k, q))
        if self.activation == 'silu':
            k, q = F.silu(k), F.silu(q)
        y_BL2HP = self.sweep(v, k, q, hidden_states)
        y = y_BL2HP.sum(2).flatten(-2)
        gate = None if self.z_proj is None else F.silu(self.z_proj(hidden_states))
        self._tell(y_BL2HP, gate)
        y = y if self.norm is None else self.norm(y)
        y = y if gate is None else y * gate.to(y.dtype)
        return self.out_proj(y.to(hidden_states.dtype)), None

    def sweep(self, v: Tensor, k: Tensor, q: Tensor, hidden_states: Tensor) -> Tensor:
        """Outputs of the two sweeps at each token, ``[B, L, 2, H, P]``.

        Args:
            v, k, q: ``[B, L, H, P]``.
            hidden_states: ``[B, L, C]``.
        """
        raise NotImplementedError

    def step_sizes(self, hidden_states: Tensor) -> Tensor:
        """dt of the two sweeps, ``[B, L, 2, H]`` in float32."""
        dt = self.dt_proj(hidden_states).float().unflatten(-1, (SWEEPS, -1))
        return F.softplus(dt + self.dt_bias.float())

    def rates(self) -> Tensor:
        """A, ``[2, H]`` in float32."""
        return -self.A_log.float().exp()

    def _tell(self, y_BL2HP: Tensor, gate: Tensor | None) -> None:
        """Pass the sweeps to the tap's listener, if there is one.

        Each is divided by the norm's common divisor and multiplied by its weight, so
        the sweeps add up to the normalised output.
        """
        if self.direction_tap.listener is None:
            return
        patches = y_BL2HP.shape[1] - self.config.prefix_tokens
        order = scan_order.bidirectional(patches, str(y_BL2HP.device))
        steps = self.direction_tap.steps(order)
        if steps is None:
            return
        if self.grid is None or self.grid[0] * self.grid[1] != patches:
            raise ValueError(
                f'Layer {self.layer_idx}: the grid {self.grid} is not that of '
                f'{patches} patches.'
            )
        if self.norm is not None:
            total = y_BL2HP.sum(2, keepdim=True).float()
            weight = self.norm.weight.float().view(-1, self.head_dim)
            y_BL2HP = y_BL2HP * self.norm.scales(total) * weight
        token_index = patch_index(order, steps)
        place = self.config.prefix_tokens + token_index
        sweeps = torch.arange(SWEEPS, device=place.device)[:, None]
        values = y_BL2HP.flatten(-2).transpose(1, 2)[:, sweeps, place]

        def project(values_B2MD: Tensor) -> Tensor:
            if gate is not None:
                values_B2MD = values_B2MD * gate[:, place]
            weight = self.out_proj.weight
            return F.linear(values_B2MD.to(weight.dtype), weight)

        self.direction_tap(DirectionFeature(values, token_index, self.grid, project))


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply rotary positions to the last tokens.

    Args:
        x: ``[B, L, H, P]``.
        cos, sin: ``[L', P]``, L' at most L.

    Returns:
        ``[B, L, H, P]``; the first L - L' tokens are unchanged.
    """
    before, x = x.split((x.shape[1] - len(cos), len(cos)), dim=1)
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    x = x * cos[:, None].to(x.dtype) + turned * sin[:, None].to(x.dtype)
    return torch.cat((before, x), dim=1)
