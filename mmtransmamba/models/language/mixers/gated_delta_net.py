"""A Gated DeltaNet mixer with the shapes of the attention it replaces."""

from __future__ import annotations

import math
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
    SMALL_GATE,
    ZEROS,
    Fill,
    Init,
)
from mmtransmamba.models.language.mixers.mamba2 import A_RANGE, HeadRMSNorm
from mmtransmamba.models.language.mixers.rotary import rotate
from mmtransmamba.ops import gated_delta_rule, gated_delta_rule_step
from mmtransmamba.registry import DECODER_MIXERS

HALF_LIVES = (16, 1024)
"""Tokens after which half of a state is left, in the first and in the last head."""


def half_lives(fresh: Tensor, config: Any, generator: torch.Generator) -> Tensor:
    """Biases of dt for decays with fixed half-lives, if A is -1 and dt has no input.

    Args:
        fresh: Bias of a new mixer, ``[H]``, or ``[H * K]`` with a decay per channel.
        config: Config of the hybrid.
        generator: Not used.
    """
    heads = config.num_attention_heads
    first, last = (math.log(tokens) for tokens in HALF_LIVES)
    step = math.log(2) / torch.linspace(first, last, heads, dtype=torch.float64).exp()
    bias = step.expm1().log().repeat_interleave(fresh.numel() // heads)
    return bias.to(fresh)


MIMIC = IDENTITY_CONV | {
    'beta_proj.weight': ZEROS,
    'A_log': Fill('zeros, A = -1', lambda fresh, *_: torch.zeros_like(fresh)),
    'dt_bias': Fill(
        f'half-lives of {HALF_LIVES[0]} to {HALF_LIVES[1]} tokens', half_lives
    ),
}
"""A mixer near its attention: no convolution yet, decays and strengths (1/2) without
input dependence, so that a key replaces half of what it recalls."""

CALIBRATE = Init(
    from_attention=True,
    fills={name: fill for name, fill in MIMIC.items() if name != 'dt_bias'},
    calibrated=True,
)


@DECODER_MIXERS.register_module('GatedDeltaNet')
class GatedDeltaNetMixer(DecoderMixer):
    r"""Gated DeltaNet (arXiv:2412.06464) with the attention's q, k, v and o.

    With :math:`[v, k, q]` from ``v_proj``, ``k_proj``, ``q_proj`` through the causal
    convolution, q and k of length 1, and for each head
    :math:`g = -e^{A} \mathrm{softplus}(\mathrm{dt\_proj} + \mathrm{dt\_bias})` and
    :math:`\beta = \sigma(\mathrm{beta\_proj})`,

    .. math::
        S_t = e^{g_t} (I - \beta_t k_t k_t^T) S_{t-1} + \beta_t k_t v_t^T, \qquad
        y_t = S_t^T q_t / \sqrt{K}

    then a norm of each head, the gate :math:`\mathrm{SiLU}(\mathrm{z\_proj})` and
    ``out_proj``. Heads and head size are the attention's. With grouped-query attention
    v and k have the fewer key-value heads, which are repeated after the convolution,
    exactly as the attention repeats them.

    Args:
        config, layer_idx: See :class:`DecoderMixer`.
        d_conv: Taps of the causal convolution.
        conv_activation: ``'silu'`` or ``'identity'``, after the convolution.
        norm_eps: Epsilon of the norm.
        negative: Whether the maximum of beta is 2 instead of 1, so that a step can also
            reverse the value that its key recalls.
        in_bias, out_bias: Whether the projections have biases.
        qk_norm: Whether k and q are normalised as in Qwen3 before the convolution.
        rope: Whether k and q are rotated after the convolution, with the decoder's
            rotary embedding.
    """

    choices = {'conv_activation': CONV_ACTIVATIONS}
    follows = ('in_bias', 'out_bias', 'qk_norm')
    inits = {
        'mimic': Init(
            dict(d_conv=2),
            from_attention=True,
            fills=MIMIC | {'dt_proj.weight': ZEROS, 'z_proj.weight': SMALL_GATE},
        ),
        'vkq': Init(from_attention=True),
        'calibrate': CALIBRATE,
        'scratch': Init(),
    }
    attention = {
        'v_proj': ('v_proj',),
        'k_proj': ('k_proj',),
        'q_proj': ('q_proj',),
        'k_norm': ('k_norm',),
        'q_norm': ('q_norm',),
        'out_proj': ('o_proj', 'dense'),
    }
    groups = {
        'qkv': ('v_proj', 'k_proj', 'q_proj', 'k_norm', 'q_norm'),
        'out_proj': ('out_proj',),
    }
    float32 = ('A_log', 'dt_bias')
    unquantized = ('conv1d', 'dt_proj', 'beta_proj')
    gate_activation = 'silu'
    rule = staticmethod(gated_delta_rule)
    step = staticmethod(gated_delta_rule_step)

    def __init__(
        self,
        config: Any,
        layer_idx: int,
        *,
        d_conv: int = 4,
        conv_activation: str = 'silu',
        norm_eps: float = 1e-5,
        negative: bool = False,
        in_bias: bool = False,
        out_bias: bool = False,
        qk_norm: bool = False,
        rope: bool = False,
    ) -> None:
        super().__init__(config, layer_idx)
        self.conv_activation = conv_activation
        self.rope = rope
        self.negative = negative
        hidden = config.hidden_size
        self.take_heads(config)
        self.v_proj = nn.Linear(hidden, self.d_groups, bias=in_bias)
        self.k_proj = nn.Linear(hidden, self.d_groups, bias=in_bias)
        self.q_proj = nn.Linear(hidden, self.d_inner, bias=in_bias)
        self.k_norm = self.q_norm = None
        if qk_norm:
            eps = config.rms_norm_eps
            self.k_norm = nn.RMSNorm(self.head_dim, eps=eps)
            self.q_norm = nn.RMSNorm(self.head_dim, eps=eps)
        self.beta_proj = nn.Linear(hidden, self.num_heads, bias=False)
        self.conv1d = CausalConv(2 * self.d_groups + self.d_inner, d_conv)
        self.A_log = float32_parameter(self.num_heads)
        self.norm = HeadRMSNorm(self.d_inner, self.head_dim, eps=norm_eps)
        self.out_proj = nn.Linear(self.d_inner, hidden, bias=out_bias)
        self.make_gates(hidden)
        self.reset_parameters()

    def make_gates(self, hidden: int) -> None:
        """Add ``dt_bias`` and the projections of decay and output gate."""
        self.dt_bias = float32_parameter(self.num_heads)
        self.dt_proj = nn.Linear(hidden, self.num_heads, bias=False)
        self.z_proj = nn.Linear(hidden, self.d_inner, bias=False)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Like Mamba-2: A uniform in [1, 16], dt log-uniform."""
        init_conv(self.conv1d)
        init.copy_(self.A_log, torch.empty_like(self.A_log).uniform_(*A_RANGE).log())
        bias = new_step_sizes(self.dt_bias.numel(), self.dt_bias.device)
        init.copy_(self.dt_bias, bias)
        init.ones_(self.norm.weight)

    @torch.no_grad()
    def calibrate(self, distances: Tensor, constant: Tensor) -> None:
        """See :meth:`DecoderMixer.calibrate`."""
        bias = step_sizes_of(distances)
        repeats = self.dt_bias.numel() // self.num_heads
        self.dt_bias.copy_(bias.repeat_interleave(repeats))
        for name, weight in self.dt_proj.named_parameters():
            if not name.startswith('0.'):  # one zero factor is enough
                weight.zero_()
        self.calibrate_gate(constant)

    def calibrate_gate(self, constant: Tensor) -> None:
        """Make the output gate nearly constant."""
        self.z_proj.weight.copy_(constant.expand_as(self.z_proj.weight))

    def project(self, hidden_states: Tensor) -> Tensor:
        """v, k and q before the convolution, concatenated: ``[B, L, D]``."""
        k_BLD, q_BLD = self.k_proj(hidden_states), self.q_proj(hidden_states)
        if self.k_norm is not None:
            heads = (-1, self.head_dim)
            k_BLD = self.k_norm(k_BLD.unflatten(-1, heads)).flatten(-2)
            q_BLD = self.q_norm(q_BLD.unflatten(-1, heads)).flatten(-2)
        return torch.cat((self.v_proj(hidden_states), k_BLD, q_BLD), dim=-1)

    def log_decays(self, hidden_states: Tensor) -> Tensor:
        """g, ``[B, L, H]`` in float32."""
        dt = F.softplus(self.dt_proj(hidden_states).float() + self.dt_bias.float())
        return -self.A_log.float().exp() * dt

    def parts(self, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What :meth:`recur` needs of single tokens: v, k, q; g and beta."""
        beta = self.beta_proj(hidden_states).float().sigmoid()
        beta = 2 * beta if self.negative else beta
        return self.project(hidden_states), self.log_decays(hidden_states), beta

    def mix(self, hidden_states: Tensor, recur: Callable[..., Tensor]) -> Tensor:
        dtype = hidden_states.dtype
        y = self.gate(recur(*self.parts(hidden_states)), hidden_states, dtype)
        return self.out_proj(y.to(dtype))

    def gate(
        self, y_BLD: Tensor, hidden_states: Tensor, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Norm and gate of the recurrence's output, see :meth:`Mamba2Mixer.gate`."""
        z = self.z_proj(hidden_states)
        return self.norm(y_BLD, z, activation=self.gate_activation, dtype=dtype)

    def operands(
        self,
        vkq: Tensor,
        g: Tensor,
        beta: Tensor,
        *turns: Tensor,
        cache: Cache | None = None,
        padding_mask: Tensor | None = None,
        gaps: bool = True,
        begins: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """q, k, v, g and beta of the recurrence, see :meth:`scan`."""
        vkq = self.convolve(vkq, cache, padding_mask, gaps, begins)
        v, k, q = (
            part.unflatten(-1, (-1, self.head_dim))
            for part in vkq.split((self.d_groups, self.d_groups, self.d_inner), dim=-1)
        )
        if turns:
            k, q = rotate(k, *turns), rotate(q, *turns)
        if padding_mask is not None:  # with both zero, a step keeps the state
            g, beta = (x.masked_fill(~padding_mask[..., None], 0) for x in (g, beta))
        return q, k, v, g, beta

    def recur(
        self,
        vkq: Tensor,
        g: Tensor,
        beta: Tensor,
        *turns: Tensor,
        cache: Cache | None = None,
        padding_mask: Tensor | None = None,
        gaps: bool = True,
        state: Tensor | None = None,
        begins: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        operands = self.operands(
            vkq,
            g,
            beta,
            *turns,
            cache=cache,
            padding_mask=padding_mask,
            gaps=gaps,
            begins=begins,
        )
        y, state = self.scan(*operands, state, begins)
        return y.flatten(-2), state

    def mixing_matrix(
        self,
        hidden_states: Tensor,
        padding_mask: Tensor | None = None,
        gaps: bool = True,
    ) -> Tensor:
        """See :meth:`DecoderMixer.mixing_matrix`.

        The recurrence is linear in the values, so with the unit vectors of all places
        as values it returns the columns.
        """
        turns = self.rotation(hidden_states, padding_mask=padding_mask)
        q, k, _, g, beta = self.operands(
            *self.parts(hidden_states), *turns, padding_mask=padding_mask, gaps=gaps
        )
        batch, length = hidden_states.shape[:2]
        units = torch.eye(length, dtype=q.dtype, device=q.device)[None, :, None]
        units = units.expand(batch, -1, self.num_groups, -1)
        y, _ = self.scan(q, k, units, g, beta, None)
        return y.transpose(1, 2)

    def scan(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        g: Tensor,
        beta: Tensor,
        state: Tensor | None,
        begins: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The recurrence of all heads.

        Args:
            q: ``[B, L, H, K]``.
            k, v: ``[B, L, G, K]`` and ``[B, L, G, V]`` with the G key-value heads.
            g, beta: ``[B, L, H]``, 0 for padding.
            state: Initial state ``[B, H, K, K]``, None for zero.
            begins: Bool ``[B, L]``, where a sequence begins.

        Returns:
            Output ``[B, L, H, K]`` and the last state.
        """
        k, v = self.repeated(k), self.repeated(v)
        steps = dict(q=q, k=k, v=v, g=g, beta=beta)
        if state is not None and v.shape[1] == 1 and begins is None:
            steps = {name: x[:, 0] for name, x in steps.items()}
            y, state = self.step(state, **steps, qk_l2norm=True)
            return y[:, None], state
        return self.rule(**steps, initial_state=state, begins=begins, qk_l2norm=True)
