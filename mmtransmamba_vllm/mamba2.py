"""The Mamba-2 mixer of a hybrid, on vLLM's scan, convolution and caches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vllm.distributed import tensor_model_parallel_all_reduce
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.layers.linear import (
    MergedColumnParallelLinear,
    RowParallelLinear,
)
from vllm.model_executor.layers.mamba.mamba_mixer2 import MambaMixer2
from vllm.model_executor.model_loader.weight_utils import (
    default_weight_loader,
    sharded_weight_loader,
)
from vllm.model_executor.utils import set_weight_attrs
from vllm.utils.torch_utils import _encode_layer_name

from mmtransmamba_vllm.states import heads_of, state_dtypes


class GatedNorm(nn.Module):
    """Norm and gate of the recurrence's output, in float32.

    Args:
        kind: ``'gated'``, ``'gated_per_head'``, ``'per_head'`` or ``'none'``, see
            ``mmtransmamba.models.language.Mamba2Mixer``.
        channels: Channels of all processes.
        head: Channels of a head.
        eps: Added to the mean square.
        parts: Processes among which the channels are divided.
    """

    def __init__(
        self, kind: str, channels: int, head: int, eps: float, parts: int
    ) -> None:
        super().__init__()
        self.kind, self.channels, self.eps, self.parts = kind, channels, eps, parts
        self.group = channels // parts if kind == 'gated' else head
        if kind != 'none':
            weight = torch.ones(channels // parts, dtype=torch.float32)
            self.weight = nn.Parameter(weight, requires_grad=False)
            set_weight_attrs(self.weight, {'weight_loader': sharded_weight_loader(0)})

    def forward(self, y: Tensor, z: Tensor | None) -> Tensor:
        """Normalise and gate ``[tokens, channels]``, in the dtype of ``y``."""
        out = y.float()
        gate = None if z is None else F.silu(z.float())
        before = self.kind == 'per_head'
        if gate is not None and not before:
            out = out * gate
        if self.kind != 'none':
            out = self.normalise(out)
        if gate is not None and before:
            out = out * gate
        return out.to(y.dtype)

    def normalise(self, x: Tensor) -> Tensor:
        """RMSNorm over the channels of each group."""
        groups = x.unflatten(-1, (-1, self.group))
        squares = groups.square().sum(-1, keepdim=True)
        count = self.group
        if self.kind == 'gated' and self.parts > 1:
            squares = tensor_model_parallel_all_reduce(squares)
            count = self.channels
        groups = groups * torch.rsqrt(squares / count + self.eps)
        return groups.flatten(-2) * self.weight


class HybridMamba2(MambaMixer2):
    """vLLM's Mamba-2 with the projections of a hybrid.

    The scan, the convolution and their caches are vLLM's, with as many groups as heads.
    x and B have the key-value heads; they are repeated after the projection, so that
    the weights have the size of the hybrid's.

    Args:
        fields: Complete fields of the mixer.
        config: The hybrid's config.
        model_config, cache_config: vLLM's.
        prefix: Name of the module in the model.
    """

    def __init__(
        self,
        fields: dict[str, Any],
        config: Any,
        model_config: Any,
        cache_config: Any,
        prefix: str,
    ) -> None:
        heads, groups, size = heads_of(config)
        inner, shared = heads * size, groups * size
        silu = fields['conv_activation'] == 'silu'
        super().__init__(
            hidden_size=config.hidden_size,
            ssm_state_size=size,
            conv_kernel_size=fields['d_conv'],
            intermediate_size=inner,
            use_conv_bias=True,
            use_bias=False,
            n_groups=heads,
            num_heads=heads,
            head_dim=size,
            use_rms_norm=False,
            activation='silu' if silu else None,
            model_config=model_config,
            cache_config=cache_config,
            prefix=prefix,
        )
        if groups % self.tp_size:
            raise ValueError(
                f'num_key_value_heads={groups} must be divisible by '
                f'tensor_parallel_size={self.tp_size}'
            )
        self.repeats = heads // groups
        self.gated = fields['gate']
        sizes = dict(z=inner, x=shared, B=shared, C=inner, dt=heads)
        if not self.gated:
            del sizes['z']
        self.projections = {f'{part}_proj': i for i, part in enumerate(sizes)}
        self.sizes = [part // self.tp_size for part in sizes.values()]
        self.full_sizes = (shared, shared, inner)
        self.in_proj = MergedColumnParallelLinear(
            config.hidden_size,
            list(sizes.values()),
            bias=fields['in_bias'],
            prefix=f'{prefix}.in_proj',
        )
        if fields['in_bias']:
            self.in_proj.bias.data.zero_()  # z and dt have none
        self.out_proj = RowParallelLinear(
            inner,
            config.hidden_size,
            bias=fields['out_bias'],
            input_is_parallel=True,
            prefix=f'{prefix}.out_proj',
        )
        self.B_norm = self.C_norm = None
        if fields['qk_norm']:
            self.B_norm = RMSNorm(size, eps=config.rms_norm_eps)
            self.C_norm = RMSNorm(size, eps=config.rms_norm_eps)
        self.norm = GatedNorm(
            fields['norm'], inner, size, fields['norm_eps'], self.tp_size
        )
        self._keep_float32(fields['skip'])

    def _keep_float32(self, skip: bool) -> None:
        """Store D and the bias of dt in float32, as the hybrid does."""
        for name in ('D', 'dt_bias') if skip else ('dt_bias',):
            value = torch.ones(self.num_heads // self.tp_size, dtype=torch.float32)
            setattr(self, name, nn.Parameter(value, requires_grad=False))
            set_weight_attrs(
                getattr(self, name), {'weight_loader': sharded_weight_loader(0)}
            )
        if not skip:
            zeros = torch.zeros_like(self.dt_bias.data)
            del self.D
            self.register_buffer('D', zeros, persistent=False)

    def get_state_dtype(self) -> tuple[torch.dtype, ...]:
        """See :func:`~mmtransmamba_vllm.states.state_dtypes`."""
        return state_dtypes(self.model_config, self.cache_config)

    def forward(self, positions: Tensor, hidden_states: Tensor) -> Tensor:
        """Mix tokens ``[tokens, C]``; the positions of attention are not needed."""
        parts = list(self.in_proj(hidden_states)[0].split(self.sizes, dim=-1))
        z = parts.pop(0) if self.gated else None
        x, B, C, dt = parts
        x, B, C = (part.unflatten(-1, (-1, self.head_dim)) for part in (x, B, C))
        if self.B_norm is not None:
            B, C = self.B_norm(B.contiguous()), self.C_norm(C.contiguous())
        if self.repeats > 1:
            x = x.repeat_interleave(self.repeats, dim=1)
            B = B.repeat_interleave(self.repeats, dim=1)
        C = C.flatten(1)
        # vLLM's operator expects the gate in front and does not read it.
        columns = (C if z is None else z, x.flatten(1), B.flatten(1), C, dt)
        y = torch.empty_like(C, memory_format=torch.contiguous_format)
        torch.ops.vllm.mamba_mixer2(
            torch.cat(columns, dim=-1), y, _encode_layer_name(self.prefix)
        )
        return self.out_proj(self.norm(y, z))[0]

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Load the hybrid's tensors; those that are missing are reported by vLLM.

        Raises:
            ValueError: A tensor has no place in the mixer.
        """
        parameters = dict(self.named_parameters())
        loaded = set()
        for name, tensor in weights:
            part, _, kind = name.partition('.')
            if part in self.projections:
                parameter = parameters[f'in_proj.{kind}']
                parameter.weight_loader(parameter, tensor, self.projections[part])
                loaded.add(f'in_proj.{kind}')
                continue
            if part == 'conv1d':
                tensor = self._repeat(tensor)
            own = 'A' if name == 'A_log' else name
            if own not in parameters:
                raise ValueError(f'{self.prefix}: the mixer has no tensor {name}')
            parameter = parameters[own]
            loader = getattr(parameter, 'weight_loader', default_weight_loader)
            loader(parameter, tensor)
            loaded.add(own)
        return loaded

    def _repeat(self, tensor: Tensor) -> Tensor:
        """Rows of the convolution's weight or bias for x, B and C of every head."""
        x, B, C = tensor.split(self.full_sizes)
        x, B = (
            part.unflatten(0, (-1, self.head_dim))
            .repeat_interleave(self.repeats, dim=0)
            .flatten(0, 1)
            for part in (x, B)
        )
        return torch.cat((x, B, C))
