"""Decoders in which Mamba replaces part or all of the attention."""

from .config import ATTENTION, MAMBA, HybridFields
from .families import (
    HYBRIDS,
    HybridLlamaConfig,
    HybridLlamaForCausalLM,
    HybridMistralConfig,
    HybridMistralForCausalLM,
    HybridPhiConfig,
    HybridPhiForCausalLM,
    HybridQwen2Config,
    HybridQwen2ForCausalLM,
    HybridQwen3Config,
    HybridQwen3ForCausalLM,
    causal_lm_class,
)
from .heads import HEADS
from .layer_choice import choose_layers
from .mixers import Mamba2Mixer, MambaMixer
from .precision import cast_parameters, unquantized_modules

__all__ = [
    'ATTENTION',
    'HEADS',
    'HYBRIDS',
    'HybridFields',
    'HybridLlamaConfig',
    'HybridLlamaForCausalLM',
    'HybridMistralConfig',
    'HybridMistralForCausalLM',
    'HybridPhiConfig',
    'HybridPhiForCausalLM',
    'HybridQwen2Config',
    'HybridQwen2ForCausalLM',
    'HybridQwen3Config',
    'HybridQwen3ForCausalLM',
    'MAMBA',
    'Mamba2Mixer',
    'MambaMixer',
    'cast_parameters',
    'causal_lm_class',
    'choose_layers',
    'unquantized_modules',
]
