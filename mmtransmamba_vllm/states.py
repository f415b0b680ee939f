"""Shapes and dtypes of the states that vLLM caches for a hybrid's mixers."""

from __future__ import annotations

from typing import Any

import torch
from vllm.config import VllmConfig
from vllm.model_executor.layers.mamba.mamba_utils import (
    MambaStateCopyFunc,
    MambaStateCopyFuncCalculator,
    MambaStateDtypeCalculator,
    MambaStateShapeCalculator,
)
from vllm.utils.torch_utils import STR_DTYPE_TO_TORCH_DTYPE

from mmtransmamba_vllm.mixer_fields import state_mixer


def heads_of(config: Any) -> tuple[int, int, int]:
    """Query heads, key-value heads, and channels of a head."""
    heads = config.num_attention_heads
    size = getattr(config, 'head_dim', None) or config.hidden_size // heads
    return heads, config.num_key_value_heads or heads, size


def state_dtypes(model_config: Any, cache_config: Any) -> tuple[torch.dtype, ...]:
    """Dtypes of the convolution's inputs and of the recurrent state.

    The recurrent state is float32, as in ``mmtransmamba``, unless
    ``--mamba-ssm-cache-dtype`` names another dtype.
    """
    conv, _ = MambaStateDtypeCalculator.mamba2_state_dtype(
        model_config.dtype, cache_config.mamba_cache_dtype, 'auto'
    )
    wanted = cache_config.mamba_ssm_cache_dtype
    return conv, (
        torch.float32 if wanted == 'auto' else STR_DTYPE_TO_TORCH_DTYPE[wanted]
    )


class HybridStates:
    """vLLM's interface to the states, for a model class."""

    @classmethod
    def get_mamba_state_dtype_from_config(
        cls, vllm_config: VllmConfig
    ) -> tuple[torch.dtype, ...]:
        """See :func:`state_dtypes`."""
        return state_dtypes(vllm_config.model_config, vllm_config.cache_config)

    @classmethod
    def get_mamba_state_shape_from_config(
        cls, vllm_config: VllmConfig
    ) -> tuple[tuple[int, ...], ...]:
        """Shapes of the convolution's inputs and of the recurrent state."""
        config = vllm_config.model_config.hf_config
        parts = vllm_config.parallel_config.tensor_parallel_size
        mixer = state_mixer(config)
        if mixer['type'] == 'Mamba':
            return MambaStateShapeCalculator.mamba1_state_shape(
                tp_world_size=parts,
                intermediate_size=int(mixer['expand'] * config.hidden_size),
                state_size=mixer['d_state'],
                conv_kernel=mixer['d_conv'],
            )
        heads, _, size = heads_of(config)
        return MambaStateShapeCalculator.mamba2_state_shape(
            tp_world_size=parts,
            intermediate_size=heads * size,
            n_groups=heads,
            num_heads=heads,
            head_dim=size,
            state_size=size,
            conv_kernel=mixer['d_conv'],
        )

    @classmethod
    def get_mamba_state_copy_func(cls) -> tuple[MambaStateCopyFunc, ...]:
        """Functions that copy the two states; Mamba-1 has the same ones."""
        return MambaStateCopyFuncCalculator.mamba2_state_copy_func()
