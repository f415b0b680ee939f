"""A Mamba-2 mixer with the shapes of the attention it replaces."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers.cache_utils import Cache

from mmtransmamba.models.language.mixers.base import (
    DecoderMixer,
    causal_conv,
    float32_parameter,
    init_conv,
    new_step_sizes,
)
from mmtransmamba.models.language.packing import restart
from mmtransmamba.ops import ssd_scan, ssd_step

A_RANGE = (1.0, 16.0)


class HeadRMSNorm(nn.Module):
    """RMSNorm over the channels of each group of heads, in float32.

    Args:
        channels: All channels.
        group: Channels that are normalised together.
        eps: Added to the mean square.
    """

    def __init__(self, channels: int, group: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.group = group
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``[..., channels]``; the result is float32."""
        parts = x.float().unflatten(-1, (-1, self.group))
        parts = parts * torch.rsqrt(parts.square().mean(-1, keepdim=True) + self.eps)
        return parts.flatten(-2) * self.weight.float()


class Mamba2Mixer(DecoderMixer):
    r"""Mamba-2 (arXiv:2405.21060) whose x, B and C are shaped as v, k and q.

    With :math:`[x, B, C]` from ``x_proj``, ``B_proj``, ``C_proj`` through the causal
    convolution, and for each head :math:`\Delta = \mathrm{softplus}(\mathrm{dt\_proj}
    + \mathrm{dt\_bias})`,

    .. math::
        h_t = e^{-\Delta_t e^{A}} h_{t-1} + \Delta_t x_t B_t^T, \qquad
        y_t = h_t C_t + D x_t

    then norm, gate :math:`\mathrm{SiLU}(\mathrm{z\_proj})` and ``out_proj``. Heads and
    head size are the attention's. With grouped-query attention x and B have the
    fewer key-value heads, which are repeated after the convolution, exactly as the
    attention repeats k and v.

    The projections are separate so that a stage of the training can freeze those
    that come from the Transformer.

    Args:
        config: See :class:`DecoderMixer`. ``mamba_norm``: ``'gated_per_head'``, of the
            gated output, for each head alone (MaTVLM and Mamba2InLlama, and what
            ``mamba_ssm`` and serving engines compute with as many groups as heads);
            ``'gated'``, of the gated output, over all channels (Mamba-2 with one
            group); ``'per_head'``, before the gate and for each head alone (mmMamba);
            ``'none'``. ``mamba_gate`` and ``mamba_skip`` switch z and D.
        layer_idx: See :class:`DecoderMixer`.
    """

    def __init__(self, config, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        hidden = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.num_groups = config.num_key_value_heads or self.num_heads
        self.head_dim = getattr(config, 'head_dim', None) or hidden // self.num_heads
        self.d_inner = self.num_heads * self.head_dim
        self.d_groups = self.num_groups * self.head_dim
        bias = config.mamba_in_bias
        self.x_proj = nn.Linear(hidden, self.d_groups, bias=bias)
        self.B_proj = nn.Linear(hidden, self.d_groups, bias=bias)
        self.C_proj = nn.Linear(hidden, self.d_inner, bias=bias)
        self.dt_proj = nn.Linear(hidden, self.num_heads, bias=False)
        self.z_proj = None
        if config.mamba_gate:
            self.z_proj = nn.Linear(hidden, self.d_inner, bias=False)
        self.B_norm = self.C_norm = None
        if config.mamba_qk_norm:
            eps = config.rms_norm_eps
            self.B_norm = nn.RMSNorm(self.head_dim, eps=eps)
            self.C_norm = nn.RMSNorm(self.head_dim, eps=eps)
        self.conv1d = causal_conv(2 * self.d_groups + self.d_inner, config.mamba_d_conv)
        self.dt_bias = float32_parameter(self.num_heads)
        self.A_log = float32_parameter(self.num_heads)
        self.D = None
        if config.mamba_skip:
            self.D = float32_parameter(self.num_heads)
        self.norm = None
        if config.mamba_norm != 'none':
            group = self.d_inner if config.mamba_norm == 'gated' else self.head_dim
            self.norm = HeadRMSNorm(self.d_inner, group, eps=config.mamba_norm_eps)
        self.out_proj = nn.Linear(self.d_inner, hidden, bias=config.mamba_out_bias)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As Mamba-2: A uniform in [1, 16], dt log-uniform, D one."""
        init_conv(self.conv1d)
        init.copy_(self.A_log, torch.empty_like(self.A_log).uniform_(*A_RANGE).log())
        init.copy_(self.dt_bias, new_step_sizes(self.num_heads, self.dt_bias.device))
        if self.D is not None:
            init.ones_(self.D)
        if self.norm is not None:
            init.ones_(self.norm.weight)

    def project(self, hidden_states: Tensor) -> Tensor:
        """x, B and C before the convolution, side by side: ``[B, L, D]``."""
        B_BLD, C_BLD = self.B_proj(hidden_states), self.C_proj(hidden_states)
        if self.B_norm is not None:
            heads = (-1, self.head_dim)
            B_BLD = self.B_norm(B_BLD.unflatten(-1, heads)).flatten(-2)
            C_BLD = self.C_norm(C_BLD.unflatten(-1, heads)).flatten(-2)
        return torch.cat((self.x_proj(hidden_states), B_BLD, C_BLD), dim=-1)

    def mix(self, hidden_states: Tensor, recur: Callable[..., Tensor]) -> Tensor:
        dt = F.softplus(self.dt_proj(hidden_states).float() + self.dt_bias.float())
        y = self.gate(recur(self.project(hidden_states), dt), hidden_states)
        return self.out_proj(y.to(hidden_states.dtype))

    def recur(
        self,
        xBC: Tensor,
        dt: Tensor,
        cache: Cache | None = None,
        padding_mask: Tensor | None = None,
        gaps: bool = True,
        state: Tensor | None = None,
        begins: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        xBC = self.convolve(xBC, cache, padding_mask, gaps, begins)
        x, B, C = (
            part.unflatten(-1, (-1, self.head_dim))
            for part in xBC.split((self.d_groups, self.d_groups, self.d_inner), dim=-1)
        )
        if padding_mask is not None:
            dt = dt.masked_fill(~padding_mask[..., None], 0)
        y, state = self.scan(x, dt, B, C, state, begins)
        return y.flatten(-2), state

    def scan(
        self,
        x: Tensor,
        dt: Tensor,
        B: Tensor,
        C: Tensor,
        state: Tensor | None,
        begins: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The recurrence of all heads.

        Args:
            x, B: ``[B, L, G, P]`` with the G key-value heads.
            dt: ``[B, L, H]``, 0 for padding.
            C: ``[B, L, H, P]``.
            state: ``[B, H, P, P]`` to begin with, None for zero.
            begins: Bool ``[B, L]``, where a row begins anew.

        Returns:
            Output ``[B, L, H, P]`` and the last state.
        """
        repeats = self.num_heads // self.num_groups
        if repeats > 1:
            x, B = (part.repeat_interleave(repeats, dim=2) for part in (x, B))
        A = -torch.exp(self.A_log.float())
        D = None if self.D is None else self.D.float()
        if begins is not None:
            taken, dt = restart(x, dt, A, begins)
            y, state = ssd_scan(taken, dt, A, B, C)
            y = y if D is None else y + D[:, None] * x
            return y.to(x.dtype), state
        if state is not None and x.shape[1] == 1:
            y, state = ssd_step(state, x[:, 0], dt[:, 0], A, B[:, 0], C[:, 0], D)
            return y[:, None], state
        return ssd_scan(x, dt, A, B, C, D, initial_state=state)

    def gate(self, y_BLD: Tensor, hidden_states: Tensor) -> Tensor:
        """Norm and gate of the recurrence's output, ``[B, L, D]``."""
        z = None
        if self.z_proj is not None:
            z = F.silu(self.z_proj(hidden_states).to(y_BLD.dtype))
        if self.config.mamba_norm in ('gated', 'gated_per_head'):
            return self.norm(y_BLD if z is None else y_BLD * z)
        if self.norm is not None:
            y_BLD = self.norm(y_BLD)
        return y_BLD if z is None else y_BLD * z
