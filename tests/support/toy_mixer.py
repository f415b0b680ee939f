"""A decoder mixer as a user would write it: one file, imported by name."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from transformers import initialization as init

from mmtransmamba.models.language.mixers import DecoderMixer, Fill, Init
from mmtransmamba.registry import DECODER_MIXERS


@DECODER_MIXERS.register_module()
class RunningMean(DecoderMixer):
    """A gated, decaying mean of the values, without a convolution.

    Args:
        config, layer_idx: See :class:`DecoderMixer`.
        decay: Initial decay in (0, 1).
        gate: ``'sigmoid'`` or ``'none'``.
        out_bias: Whether the output projection has a bias.
    """

    choices = {'gate': ('sigmoid', 'none')}
    follows = ('out_bias',)
    attention = {'value': ('v_proj',), 'out_proj': ('o_proj', 'dense')}
    inits = {
        'vkq': Init(
            dict(decay=0.75),
            from_attention=True,
            fills={'shift': Fill('twos', lambda fresh, *_: torch.full_like(fresh, 2))},
        ),
        'scratch': Init(),
    }
    groups = {'qkv': ('value',), 'out_proj': ('out_proj',)}
    float32 = ('log_decay',)
    adapters = {'v_proj': ('value',)}

    def __init__(
        self,
        config,
        layer_idx: int,
        *,
        decay: float = 0.5,
        gate: str = 'sigmoid',
        out_bias: bool = False,
    ) -> None:
        super().__init__(config, layer_idx)
        heads = config.num_attention_heads
        size = getattr(config, 'head_dim', None) or config.hidden_size // heads
        self.decay = decay
        self.repeats = heads // (config.num_key_value_heads or heads)
        self.size = size
        inner = heads * size
        self.value = nn.Linear(config.hidden_size, inner // self.repeats, bias=False)
        self.gate = None
        if gate == 'sigmoid':
            self.gate = nn.Linear(config.hidden_size, inner)
        self.log_decay = nn.Parameter(torch.empty(inner, dtype=torch.float32))
        self.shift = nn.Parameter(torch.empty(inner))
        self.out_proj = nn.Linear(inner, config.hidden_size, bias=out_bias)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """The decay of the field, without a shift."""
        init.constant_(self.log_decay, math.log(self.decay))
        init.zeros_(self.shift)

    def mix(self, hidden_states: Tensor, recur) -> Tensor:
        v = self.value(hidden_states).unflatten(-1, (-1, self.size))
        v = v.repeat_interleave(self.repeats, dim=-2).flatten(-2)
        y = recur(v).to(v.dtype) + self.shift.to(v.dtype)
        if self.gate is not None:
            y = y * torch.sigmoid(self.gate(hidden_states))
        return self.out_proj(y)

    def recur(
        self, v, cache=None, padding_mask=None, gaps=True, state=None, begins=None
    ) -> tuple[Tensor, Tensor]:
        decay = self.log_decay.exp()
        state = v.new_zeros(len(v), v.shape[-1]).float() if state is None else state
        outputs = []
        for t in range(v.shape[1]):
            if begins is not None:
                state = state.masked_fill(begins[:, t, None], 0)
            moved = decay * state + (1 - decay) * v[:, t]
            if padding_mask is not None:
                moved = torch.where(padding_mask[:, t, None], moved, state)
            state = moved
            outputs.append(state)
        return torch.stack(outputs, 1), state
