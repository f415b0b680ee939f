"""Hybrids of Llama, Mistral, Qwen2 and Qwen3 for vLLM.

All four families have the block of Llama: RMSNorm, attention with rotary positions,
RMSNorm and a SwiGLU MLP. They differ in biases, norms and windows of the attention, so
all use vLLM's classes for Llama.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from vllm.config import VllmConfig
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.models.interfaces import HasInnerState, IsHybrid
from vllm.model_executor.models.llama import (
    LlamaAttention,
    LlamaDecoderLayer,
    LlamaForCausalLM,
)
from vllm.model_executor.models.utils import extract_layer_index

from mmtransmamba_vllm.mamba import HybridMamba
from mmtransmamba_vllm.mamba2 import HybridMamba2
from mmtransmamba_vllm.mixer_fields import mixer_of
from mmtransmamba_vllm.states import HybridStates

MIXERS = {'Mamba2': HybridMamba2, 'Mamba': HybridMamba}


class NormedAttention(LlamaAttention):
    """Llama's attention with Qwen3's norms of q and k."""

    def __init__(self, config: Any, **arguments: Any) -> None:
        super().__init__(config=config, **arguments)
        self.q_norm = RMSNorm(self.head_dim, eps=config.rms_norm_eps)
        self.k_norm = RMSNorm(self.head_dim, eps=config.rms_norm_eps)

    def forward(self, positions: Tensor, hidden_states: Tensor) -> Tensor:
        """Mix tokens ``[tokens, C]``."""
        sizes = (self.q_size, self.kv_size, self.kv_size)
        q, k, v = self.qkv_proj(hidden_states)[0].split(sizes, dim=-1)
        q, k = (
            norm(part.unflatten(-1, (-1, self.head_dim)).contiguous()).flatten(-2)
            for norm, part in ((self.q_norm, q), (self.k_norm, k))
        )
        q, k = self.rotary_emb(positions, q, k)
        return self.o_proj(self.attn(q, k, v))[0]


class HybridLayer(LlamaDecoderLayer):
    """A layer with attention or a mixer, according to ``layer_types``."""

    attention: type[nn.Module] = LlamaAttention

    def __init__(self, vllm_config: VllmConfig, prefix: str = '') -> None:
        config = vllm_config.model_config.hf_config
        layer = extract_layer_index(prefix)
        make = self.attention
        if config.layer_types[layer] == 'linear_attention':
            fields = mixer_of(config, layer)

            def make(prefix: str, **_: Any) -> nn.Module:
                return MIXERS[fields['type']](
                    fields,
                    config,
                    vllm_config.model_config,
                    vllm_config.cache_config,
                    prefix,
                )

        super().__init__(vllm_config, prefix, config, attn_layer_type=make)


class NormedHybridLayer(HybridLayer):
    """A layer of a Qwen3 hybrid."""

    attention = NormedAttention


class HybridLlamaForCausalLM(HybridStates, LlamaForCausalLM, HasInnerState, IsHybrid):
    """Llama with mixers in some layers."""

    layer_type: type[nn.Module] = HybridLayer
    # Not tested with mixers.
    supports_lora = False
    supports_pp = False
    supports_eagle = False
    supports_eagle3 = False

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = '') -> None:
        super().__init__(
            vllm_config=vllm_config, prefix=prefix, layer_type=self.layer_type
        )


class HybridMistralForCausalLM(HybridLlamaForCausalLM):
    """Mistral with mixers in some layers; the config contains its window."""


class HybridQwen2ForCausalLM(HybridLlamaForCausalLM):
    """Qwen2 with mixers in some layers; the config contains its biases."""


class HybridQwen3ForCausalLM(HybridLlamaForCausalLM):
    """Qwen3 with mixers in some layers."""

    layer_type = NormedHybridLayer
