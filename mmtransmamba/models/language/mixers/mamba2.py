"""A Mamba-2 mixer with the shapes of the attention it replaces."""

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
    new_step_sizes,
    step_sizes_of,
)
from mmtransmamba.models.language.mixers.causal_conv import CausalConv
from mmtransmamba.models.language.mixers.inits import (
    IDENTITY_CONV,
    NORMAL_CONV,
    SMALL_GATE,
    ZEROS,
    Fill,
    Init,
)
from mmtransmamba.models.language.mixers.rotary import rotate
from mmtransmamba.models.language.packing import restart
from mmtransmamba.ops import ssd_matrix, ssd_scan, ssd_step
from mmtransmamba.ops.gated_norm import gated_norm
from mmtransmamba.registry import DECODER_MIXERS

A_RANGE = (1.0, 16.0)
NORMS = ('gated', 'gated_per_head', 'per_head', 'none')
_MMMAMBA = dict(d_conv=2, norm='per_head', skip=False)
# The decay is initially close to 1: dt without input dependence, A = -e.
_MIMIC = IDENTITY_CONV | {
    'dt_proj.weight': ZEROS,
    'A_log': Fill('ones, A = -e', lambda fresh, *_: torch.ones_like(fresh)),
    'z_proj.weight': SMALL_GATE,
}


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

    def forward(
        self,
        y: Tensor,
        z: Tensor | None = None,
        gate_first: bool = False,
        activation: str = 'silu',
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Norm and gate, see :func:`~mmtransmamba.ops.gated_norm.gated_norm`.

        The module is called, never its weight used from outside: what offloads or
        shards weights fetches them for the call.
        """
        return gated_norm(
            y,
            z,
            self.weight,
            group=self.group,
            eps=self.eps,
            gate_first=gate_first,
            activation=activation,
            dtype=dtype,
        )

    def scales(self, parts: Tensor) -> Tensor:
        """Inverse root mean squares ``[..., 1]`` of channels ``[..., group]``."""
        return torch.rsqrt(parts.square().mean(-1, keepdim=True) + self.eps)


@DECODER_MIXERS.register_module('Mamba2')
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
        config, layer_idx: See :class:`DecoderMixer`.
        d_conv: Taps of the causal convolution.
        conv_activation: ``'silu'`` or ``'identity'``, after the convolution.
        norm: ``'gated_per_head'``: after the gate, for each head separately (MaTVLM and
            Mamba2InLlama, and ``mamba_ssm`` and serving engines with as many groups as
            heads); ``'gated'``: after the gate, over all channels (Mamba-2 with one
            group); ``'per_head'``: before the gate, for each head separately (mmMamba);
            ``'none'``.
        norm_eps: Its epsilon.
        gate, skip: Whether z and D exist.
        in_bias, out_bias: Whether the projections have biases.
        qk_norm: Whether B and C are normalised like Qwen3's k and q.
        rope: Whether B and C are rotated after the convolution, with the decoder's
            rotary embedding.
    """

    choices = {'conv_activation': CONV_ACTIVATIONS, 'norm': NORMS}
    follows = ('in_bias', 'out_bias', 'qk_norm')
    inits = {
        'mimic': Init(_MMMAMBA, from_attention=True, fills=_MIMIC),
        'inherit': Init(_MMMAMBA, from_attention=True),
        'vkq': Init(
            dict(d_conv=4, norm='gated_per_head'),
            # Native architectures have one epsilon, so the mixers use the decoder's.
            follows=('norm_eps',),
            from_attention=True,
        ),
        'calibrate': Init(
            dict(d_conv=4, norm='gated_per_head'),
            follows=('norm_eps',),
            from_attention=True,
            fills=IDENTITY_CONV | {'D': ZEROS},
            calibrated=True,
        ),
        'subclone': Init(dict(d_conv=4), blocks=True, fills=NORMAL_CONV),
        'scratch': Init(_MMMAMBA),
    }
    attention = {
        'x_proj': ('v_proj',),
        'B_proj': ('k_proj',),
        'C_proj': ('q_proj',),
        'B_norm': ('k_norm',),
        'C_norm': ('q_norm',),
        'out_proj': ('o_proj', 'dense'),
    }
    own_init = ('dt_proj',)
    groups = {
        'qkv': ('x_proj', 'B_proj', 'C_proj', 'B_norm', 'C_norm'),
        'out_proj': ('out_proj',),
    }
    float32 = ('A_log', 'D', 'dt_bias')
    adapters = {'q_proj': ('C_proj',), 'k_proj': ('B_proj',), 'v_proj': ('x_proj',)}

    def __init__(
        self,
        config: Any,
        layer_idx: int,
        *,
        d_conv: int = 4,
        conv_activation: str = 'silu',
        norm: str = 'gated',
        norm_eps: float = 1e-5,
        gate: bool = True,
        skip: bool = True,
        in_bias: bool = False,
        out_bias: bool = False,
        qk_norm: bool = False,
        rope: bool = False,
    ) -> None:
        super().__init__(config, layer_idx)
        self.conv_activation = conv_activation
        self.rope = rope
        hidden = config.hidden_size
        self.take_heads(config)
        self.x_proj = nn.Linear(hidden, self.d_groups, bias=in_bias)
        self.B_proj = nn.Linear(hidden, self.d_groups, bias=in_bias)
        self.C_proj = nn.Linear(hidden, self.d_inner, bias=in_bias)
        self.dt_proj = nn.Linear(hidden, self.num_heads, bias=False)
        self.z_proj = None
        if gate:
            self.z_proj = nn.Linear(hidden, self.d_inner, bias=False)
        self.B_norm = self.C_norm = None
        if qk_norm:
            eps = config.rms_norm_eps
            self.B_norm = nn.RMSNorm(self.head_dim, eps=eps)
            self.C_norm = nn.RMSNorm(self.head_dim, eps=eps)
        self.conv1d = CausalConv(2 * self.d_groups + self.d_inner, d_conv)
        self.dt_bias = float32_parameter(self.num_heads)
        self.A_log = float32_parameter(self.num_heads)
        self.D = None
        if skip:
            self.D = float32_parameter(self.num_heads)
        self.norm = None
        self.norm_kind = norm
        if norm != 'none':
            group = self.d_inner if norm == 'gated' else self.head_dim
            self.norm = HeadRMSNorm(self.d_inner, group, eps=norm_eps)
        self.out_proj = nn.Linear(self.d_inner, hidden, bias=out_bias)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Like Mamba-2: A uniform in [1, 16], dt log-uniform, D one."""
        init_conv(self.conv1d)
        init.copy_(self.A_log, torch.empty_like(self.A_log).uniform_(*A_RANGE).log())
        init.copy_(self.dt_bias, new_step_sizes(self.num_heads, self.dt_bias.device))
        if self.D is not None:
            init.ones_(self.D)
        if self.norm is not None:
            init.ones_(self.norm.weight)

    @torch.no_grad()
    def calibrate(self, distances: Tensor, constant: Tensor) -> None:
        """See :meth:`DecoderMixer.calibrate`."""
        self.A_log.zero_()
        self.dt_bias.copy_(step_sizes_of(distances))
        self.dt_proj.weight.zero_()
        if self.z_proj is not None:
            self.z_proj.weight.copy_(constant.expand_as(self.z_proj.weight))

    def project(self, hidden_states: Tensor) -> Tensor:
        """x, B and C before the convolution, concatenated: ``[B, L, D]``."""
        B_BLD, C_BLD = self.B_proj(hidden_states), self.C_proj(hidden_states)
        if self.B_norm is not None:
            heads = (-1, self.head_dim)
            B_BLD = self.B_norm(B_BLD.unflatten(-1, heads)).flatten(-2)
            C_BLD = self.C_norm(C_BLD.unflatten(-1, heads)).flatten(-2)
        return torch.cat((self.x_proj(hidden_states), B_BLD, C_BLD), dim=-1)

    def parts(self, hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        """What :meth:`recur` needs of single tokens: x, B, C and dt."""
        dt = F.softplus(self.dt_proj(hidden_states).float() + self.dt_bias.float())
        return self.project(hidden_states), dt

    def mix(self, hidden_states: Tensor, recur: Callable[..., Tensor]) -> Tensor:
        dtype = hidden_states.dtype
        y = self.gate(recur(*self.parts(hidden_states)), hidden_states, dtype)
        return self.out_proj(y.to(dtype))

    def operands(
        self,
        xBC: Tensor,
        dt: Tensor,
        *turns: Tensor,
        cache: Cache | None = None,
        padding_mask: Tensor | None = None,
        gaps: bool = True,
        begins: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x, dt, B and C of the recurrence, see :meth:`scan`."""
        xBC = self.convolve(xBC, cache, padding_mask, gaps, begins)
        x, B, C = (
            part.unflatten(-1, (-1, self.head_dim))
            for part in xBC.split((self.d_groups, self.d_groups, self.d_inner), dim=-1)
        )
        if turns:
            B, C = rotate(B, *turns), rotate(C, *turns)
        if padding_mask is not None:
            dt = dt.masked_fill(~padding_mask[..., None], 0)
        return x, dt, B, C

    def recur(
        self,
        xBC: Tensor,
        dt: Tensor,
        *turns: Tensor,
        cache: Cache | None = None,
        padding_mask: Tensor | None = None,
        gaps: bool = True,
        state: Tensor | None = None,
        begins: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        x, dt, B, C = self.operands(
            xBC,
            dt,
            *turns,
            cache=cache,
            padding_mask=padding_mask,
            gaps=gaps,
            begins=begins,
        )
        y, state = self.scan(x, dt, B, C, state, begins)
        return y.flatten(-2), state

    def mixing_matrix(
        self,
        hidden_states: Tensor,
        padding_mask: Tensor | None = None,
        gaps: bool = True,
    ) -> Tensor:
        """See :meth:`DecoderMixer.mixing_matrix`; D is on the diagonal."""
        turns = self.rotation(hidden_states, padding_mask=padding_mask)
        _, dt, B, C = self.operands(
            *self.parts(hidden_states), *turns, padding_mask=padding_mask, gaps=gaps
        )
        A = -torch.exp(self.A_log.float())
        matrix = ssd_matrix(dt, A, self.repeated(B).float(), C.float())
        if self.D is not None:
            matrix = matrix + torch.diag_embed(
                self.D.float()[:, None].expand(-1, matrix.shape[-1])
            )
        return matrix

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
            state: Initial state ``[B, H, P, P]``, None for zero.
            begins: Bool ``[B, L]``, where a sequence begins.

        Returns:
            Output ``[B, L, H, P]`` and the last state.
        """
        x, B = self.repeated(x), self.repeated(B)
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

    def gate(
        self, y_BLD: Tensor, hidden_states: Tensor, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Norm and gate of the recurrence's output, ``[B, L, D]``.

        Args:
            y_BLD: The output.
            hidden_states: The layer's input.
            dtype: Of the result of a norm; float32 by default.
        """
        z = None
        if self.z_proj is not None:
            z = self.z_proj(hidden_states).to(y_BLD.dtype)
        if self.norm is not None:
            gate_first = self.norm_kind in ('gated', 'gated_per_head')
            return self.norm(y_BLD, z, gate_first, dtype=dtype)
        return y_BLD if z is None else y_BLD * F.silu(z)
