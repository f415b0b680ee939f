"""The Mamba-1 mixer, under the names of published Mamba checkpoints."""

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
)
from mmtransmamba.models.language.mixers.causal_conv import CausalConv
from mmtransmamba.models.language.mixers.inits import NORMAL_CONV, Init
from mmtransmamba.models.language.packing import restart
from mmtransmamba.ops import selective_scan_fn, selective_scan_step
from mmtransmamba.registry import DECODER_MIXERS


class StepSizeProjection(nn.Linear):
    """A linear layer whose bias is stored and added in float32."""

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[..., in_features]`` to float32 ``[..., out_features]``."""
        return F.linear(x, self.weight).float() + self.bias.float()


class SelectiveScanMixer(DecoderMixer):
    """Base of the mixers with Mamba-1's recurrence, whose B and C differ in shape.

    A subclass has ``dt_rank``, ``d_inner``, ``d_state``, ``dt_proj``, ``conv1d``,
    ``A_log`` and ``D``, and may implement :meth:`_grouped`.
    """

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Like Mamba: S4D-real A, dt log-uniform, D one."""
        init_conv(self.conv1d)
        n = torch.arange(1, self.d_state + 1, device=self.A_log.device).float().log()
        init.copy_(self.A_log, n.expand_as(self.A_log))
        init.ones_(self.D)
        bound = self.dt_rank**-0.5
        init.uniform_(self.dt_proj.weight, -bound, bound)
        init.copy_(
            self.dt_proj.bias,
            new_step_sizes(self.d_inner, self.dt_proj.bias.device),
        )

    def _recurrence(
        self,
        x: Tensor,
        dt: Tensor,
        B: Tensor,
        C: Tensor,
        padding_mask: Tensor | None,
        state: Tensor | None,
        begins: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Outputs ``[B, L, D]`` and the last state, see :meth:`DecoderMixer.recur`.

        Args:
            x, dt: Convolved input, and positive step sizes in float32, ``[B, L, D]``.
            B, C: ``[B, L, G N]`` for G groups of channels that share them.
            padding_mask, state, begins: See :meth:`DecoderMixer.recur`.
        """
        if padding_mask is not None:
            dt = dt.masked_fill(~padding_mask[..., None], 0)
        A, D = -torch.exp(self.A_log.float()), self.D.float()
        B, C = self._grouped(B), self._grouped(C)
        if begins is not None:
            taken, dt = restart(x, dt, A.amax(-1), begins)
            y, state = _scan(taken, dt, A, B, C)
            return (y + D * x).to(x.dtype), state
        if state is None:
            return _scan(x, dt, A, B, C, D)
        outputs = []
        for t in range(x.shape[1]):
            y, state = selective_scan_step(
                state, x[:, t], dt[:, t], A, B[:, t], C[:, t], D
            )
            outputs.append(y)
        return torch.stack(outputs, dim=1), state

    def _grouped(self, part: Tensor) -> Tensor:
        """``B`` or ``C`` with a dimension of its groups, if there are several."""
        return part


def _scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The recurrence from a state of zero, along rows ``[B, L, ...]``."""
    x, dt, B, C = (part.movedim(1, -1) for part in (x, dt, B, C))
    y, state = selective_scan_fn(x, dt, A, B, C, D, return_last_state=True)
    return y.transpose(1, 2), state


@DECODER_MIXERS.register_module('Mamba')
class MambaMixer(SelectiveScanMixer):
    """Mamba-1 (arXiv:2312.00752), with ``mamba_ssm``'s parameter names.

    Args:
        config, layer_idx: See :class:`DecoderMixer`; dt has rank ``hidden_size / 16``.
        d_conv: Taps of the causal convolution.
        conv_activation: ``'silu'`` or ``'identity'``, after the convolution.
        d_state: States per channel.
        expand: Inner width as a multiple of the hidden size.
        in_bias, out_bias: Whether the projections have biases.
    """

    choices = {'conv_activation': CONV_ACTIVATIONS}
    inits = {
        'subclone': Init(
            dict(d_conv=4, expand=2.0),
            from_checkpoint=True,
            blocks=True,
            fills=NORMAL_CONV,
        ),
        'scratch': Init(dict(d_conv=2)),
    }
    stacked = {
        'in_proj.weight': lambda shape: (shape('in_proj.weight')[0] // 2,) * 2,
        'x_proj.weight': lambda shape: (
            shape('dt_proj.weight')[1],
            *(shape('A_log')[1],) * 2,
        ),
    }
    own_init = ('dt_proj',)
    groups = {'qkv': ('in_proj',), 'out_proj': ('out_proj',)}
    float32 = ('A_log', 'D', 'dt_proj.bias')
    unquantized = ('conv1d', 'x_proj', 'dt_proj')
    adapters = dict.fromkeys(('q_proj', 'k_proj', 'v_proj'), ('in_proj',))

    def __init__(
        self,
        config: Any,
        layer_idx: int,
        *,
        d_conv: int = 4,
        conv_activation: str = 'silu',
        d_state: int = 16,
        expand: float = 1.0,
        in_bias: bool = False,
        out_bias: bool = False,
    ) -> None:
        super().__init__(config, layer_idx)
        hidden = config.hidden_size
        self.d_inner = int(expand * hidden)
        self.d_state = d_state
        self.conv_activation = conv_activation
        self.dt_rank = math.ceil(hidden / 16)
        self.in_proj = nn.Linear(hidden, 2 * self.d_inner, bias=in_bias)
        self.conv1d = CausalConv(self.d_inner, d_conv)
        self.x_proj = nn.Linear(
            self.d_inner, self.dt_rank + 2 * self.d_state, bias=False
        )
        self.dt_proj = StepSizeProjection(self.dt_rank, self.d_inner)
        self.dt_proj.bias = float32_parameter(self.d_inner)
        self.A_log = float32_parameter(self.d_inner, self.d_state)
        self.D = float32_parameter(self.d_inner)
        self.out_proj = nn.Linear(self.d_inner, hidden, bias=out_bias)
        self.reset_parameters()

    def mix(self, hidden_states: Tensor, recur: Callable[..., Tensor]) -> Tensor:
        x, z = self.in_proj(hidden_states).chunk(2, dim=-1)
        return self.out_proj(recur(x).to(z.dtype) * F.silu(z))

    def recur(
        self,
        x: Tensor,
        cache: Cache | None = None,
        padding_mask: Tensor | None = None,
        gaps: bool = True,
        state: Tensor | None = None,
        begins: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        x = self.convolve(x, cache, padding_mask, gaps, begins)
        dt, B, C = self.x_proj(x).split(
            (self.dt_rank, self.d_state, self.d_state), dim=-1
        )
        dt = F.softplus(self.dt_proj(dt).float())
        return self._recurrence(x, dt, B, C, padding_mask, state, begins)
