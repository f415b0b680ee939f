"""The Mamba-1 mixer of a hybrid, on vLLM's scan, convolution and caches."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vllm.model_executor.layers.linear import (
    MergedColumnParallelLinear,
    RowParallelLinear,
)
from vllm.model_executor.layers.mamba import mamba_mixer
from vllm.model_executor.utils import set_weight_attrs
from vllm.platforms import current_platform

from mmtransmamba_vllm.states import state_dtypes


class HybridMamba(mamba_mixer.MambaMixer):
    """vLLM's Mamba-1 without norms, for a hybrid.

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
        hidden, inner = config.hidden_size, int(fields['expand'] * config.hidden_size)
        silu = fields['conv_activation'] == 'silu'
        super().__init__(
            hidden_size=hidden,
            ssm_state_size=fields['d_state'],
            conv_kernel_size=fields['d_conv'],
            intermediate_size=inner,
            time_step_rank=math.ceil(hidden / 16),
            use_conv_bias=True,
            use_bias=False,
            use_rms_norm=False,
            activation='silu' if silu else None,
            # With it, vLLM copies transposed inputs, which its matrix products on
            # CPUs refuse. It changes nothing else.
            is_lora_enabled=current_platform.is_cpu(),
            model_config=model_config,
            cache_config=cache_config,
            prefix=prefix,
        )
        if fields['in_bias']:
            self.in_proj = MergedColumnParallelLinear(
                hidden, [inner] * 2, bias=True, prefix=f'{prefix}.in_proj'
            )
        if fields['out_bias']:
            self.out_proj = RowParallelLinear(
                inner,
                hidden,
                bias=True,
                input_is_parallel=True,
                prefix=f'{prefix}.out_proj',
            )
        self.D = _float32(self.D)
        self.dt_proj.bias = _float32(self.dt_proj.bias)

    def get_state_dtype(self) -> tuple[torch.dtype, ...]:
        """See :func:`~mmtransmamba_vllm.states.state_dtypes`."""
        return state_dtypes(self.model_config, self.cache_config)

    def forward(self, positions: Tensor, hidden_states: Tensor) -> Tensor:
        """Mix tokens ``[tokens, C]``; the positions of attention are not needed."""
        output = torch.empty_like(hidden_states)
        super().forward(hidden_states, output)
        return output

    def load_weights(self, weights):
        """Load the hybrid's tensors, whose names are vLLM's except for A."""
        parameters = dict(self.named_parameters())
        loaded = set()
        for name, tensor in weights:
            own = 'A' if name == 'A_log' else name
            if own not in parameters:
                raise ValueError(f'{self.prefix}: the mixer has no tensor {name}')
            parameters[own].weight_loader(parameters[own], tensor)
            loaded.add(own)
        return loaded


def _float32(parameter: nn.Parameter) -> nn.Parameter:
    """The parameter in float32, with its loader."""
    new = nn.Parameter(parameter.data.float(), requires_grad=False)
    set_weight_attrs(new, dict(vars(parameter)))
    return new


def scan_on_cpu(
    u: Tensor,
    ssm_states: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    delta_bias: Tensor,
    delta_softplus: bool,
    cache_indices: Tensor,
    has_initial_state: Tensor | None,
    query_start_loc: Tensor,
    **_: Any,
) -> Tensor:
    """The recurrence of several sequences, for which vLLM has no kernel on CPUs.

    Args:
        u, delta, z: Inputs, step sizes and gates ``[D, tokens]`` of all sequences.
        ssm_states: Cached states ``[slots, D, N]``, replaced in place.
        A: ``[D, N]``.
        B, C: ``[N, tokens]``.
        D, delta_bias: ``[D]``.
        delta_softplus: Always True.
        cache_indices: Slot of each sequence's state.
        has_initial_state: Whether a sequence continues its cached state.
        query_start_loc: Positions ``[sequences + 1]`` at which sequences begin and end.

    Returns:
        Gated output ``[D, tokens]``.
    """
    dt = F.softplus(delta.float() + delta_bias[:, None])
    inputs, B, C = (dt * u.float()).mT, B.float().mT, C.float().mT
    y = torch.empty_like(inputs)
    ends = query_start_loc.tolist()
    for i, slot in enumerate(cache_indices.tolist()):
        state = ssm_states[slot].float()
        if has_initial_state is None or not has_initial_state[i]:
            state = torch.zeros_like(state)
        for t in range(ends[i], ends[i + 1]):
            decay = torch.exp(dt[:, t, None] * A)
            state = decay * state + inputs[t, :, None] * B[t]
            y[t] = state @ C[t]
        ssm_states[slot] = state
    y = (y.mT + D[:, None] * u.float()) * F.silu(z.float())
    return y.to(u.dtype)


def update_on_cpu(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    dt_bias: Tensor,
    z: Tensor,
    state_batch_indices: Tensor,
    out: Tensor,
    **_: Any,
) -> None:
    """One step of several sequences; see :func:`scan_on_cpu` for the parameters.

    Args:
        x, dt, z, out: ``[sequences, D]``.
        B, C: ``[sequences, N]``.
        state_batch_indices: Slot of each sequence's state.
    """
    slots = state_batch_indices.flatten()
    dt, u = F.softplus(dt.float() + dt_bias), x.float()
    new = torch.exp(dt[..., None] * A) * state[slots].float()
    new = new + (dt * u)[..., None] * B.float()[:, None]
    state[slots] = new.to(state.dtype)
    y = (new @ C.float()[..., None])[..., 0] + D * u
    out.copy_(y * F.silu(z.float()))


if current_platform.is_cpu():
    # vLLM 0.32 has no scan of Mamba-1 for CPUs, and its step for CPUs is that of
    # Mamba-2, with one decay per head.
    mamba_mixer.selective_scan_fn = scan_on_cpu
    mamba_mixer.selective_state_update = update_on_cpu
