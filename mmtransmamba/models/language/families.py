"""Hybrid decoders of transformers' model families.

Each is the Transformer's own class with the attention of some layers replaced, and
is registered with ``AutoConfig``, ``AutoModel`` and ``AutoModelForCausalLM``. No class
has Mamba in its name, because ``generate`` would assume another interface.

The families are written explicitly rather than generated: transformers finds a model's
class by its name in a module, and so do pickling, ``help`` and type checkers.
"""

from __future__ import annotations

from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    LlamaPreTrainedModel,
    MistralConfig,
    MistralForCausalLM,
    MistralModel,
    MistralPreTrainedModel,
    PhiConfig,
    PhiForCausalLM,
    PhiModel,
    PhiPreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Model,
    Qwen2PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    Qwen3PreTrainedModel,
)

from mmtransmamba.models.language.cache_names import either_name
from mmtransmamba.models.language.config import HybridFields
from mmtransmamba.models.language.hybrid import HybridCausalLMMixin, HybridModelMixin
from mmtransmamba.models.language.registration import register_model


class HybridLlamaConfig(HybridFields, LlamaConfig):
    """Config of :class:`HybridLlamaForCausalLM`."""

    model_type = 'hybrid_llama'


class HybridLlamaModel(HybridModelMixin, LlamaModel):
    """Llama with Mamba layers."""

    config_class = HybridLlamaConfig


class HybridLlamaForCausalLM(HybridCausalLMMixin, LlamaForCausalLM):
    """Llama with Mamba layers and a language-modelling head."""

    config_class = HybridLlamaConfig
    forward = either_name(LlamaForCausalLM.forward)

    def __init__(self, config: HybridLlamaConfig) -> None:
        LlamaPreTrainedModel.__init__(self, config)
        self.model = HybridLlamaModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()


class HybridMistralConfig(HybridFields, MistralConfig):
    """Config of :class:`HybridMistralForCausalLM`."""

    model_type = 'hybrid_mistral'
    slides = True


class HybridMistralModel(HybridModelMixin, MistralModel):
    """Mistral with Mamba layers."""

    config_class = HybridMistralConfig


class HybridMistralForCausalLM(HybridCausalLMMixin, MistralForCausalLM):
    """Mistral with Mamba layers and a language-modelling head."""

    config_class = HybridMistralConfig
    forward = either_name(MistralForCausalLM.forward)

    def __init__(self, config: HybridMistralConfig) -> None:
        MistralPreTrainedModel.__init__(self, config)
        self.model = HybridMistralModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()


class HybridPhiConfig(HybridFields, PhiConfig):
    """Config of :class:`HybridPhiForCausalLM`."""

    model_type = 'hybrid_phi'


class HybridPhiModel(HybridModelMixin, PhiModel):
    """Phi with Mamba layers, its parallel block unchanged."""

    config_class = HybridPhiConfig


class HybridPhiForCausalLM(HybridCausalLMMixin, PhiForCausalLM):
    """Phi with Mamba layers and a language-modelling head."""

    config_class = HybridPhiConfig
    forward = either_name(PhiForCausalLM.forward)

    def __init__(self, config: HybridPhiConfig) -> None:
        PhiPreTrainedModel.__init__(self, config)
        self.model = HybridPhiModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=True)
        self.post_init()


class HybridQwen2Config(HybridFields, Qwen2Config):
    """Config of :class:`HybridQwen2ForCausalLM`."""

    model_type = 'hybrid_qwen2'
    mixes_attention = True
    slides = True


class HybridQwen2Model(HybridModelMixin, Qwen2Model):
    """Qwen2 with Mamba layers."""

    config_class = HybridQwen2Config
    masks_by_type = True


class HybridQwen2ForCausalLM(HybridCausalLMMixin, Qwen2ForCausalLM):
    """Qwen2 with Mamba layers and a language-modelling head."""

    config_class = HybridQwen2Config
    forward = either_name(Qwen2ForCausalLM.forward)

    def __init__(self, config: HybridQwen2Config) -> None:
        Qwen2PreTrainedModel.__init__(self, config)
        self.model = HybridQwen2Model(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()


class HybridQwen3Config(HybridFields, Qwen3Config):
    """Config of :class:`HybridQwen3ForCausalLM`."""

    model_type = 'hybrid_qwen3'
    mixes_attention = True
    slides = True


class HybridQwen3Model(HybridModelMixin, Qwen3Model):
    """Qwen3 with Mamba layers."""

    config_class = HybridQwen3Config
    masks_by_type = True


class HybridQwen3ForCausalLM(HybridCausalLMMixin, Qwen3ForCausalLM):
    """Qwen3 with Mamba layers and a language-modelling head."""

    config_class = HybridQwen3Config
    forward = either_name(Qwen3ForCausalLM.forward)

    def __init__(self, config: HybridQwen3Config) -> None:
        Qwen3PreTrainedModel.__init__(self, config)
        self.model = HybridQwen3Model(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()


HYBRIDS = {
    'llama': (HybridLlamaConfig, HybridLlamaModel, HybridLlamaForCausalLM),
    'mistral': (HybridMistralConfig, HybridMistralModel, HybridMistralForCausalLM),
    'phi': (HybridPhiConfig, HybridPhiModel, HybridPhiForCausalLM),
    'qwen2': (HybridQwen2Config, HybridQwen2Model, HybridQwen2ForCausalLM),
    'qwen3': (HybridQwen3Config, HybridQwen3Model, HybridQwen3ForCausalLM),
}
"""Config, decoder and causal language model by the Transformer's ``model_type``."""


def causal_lm_class(config: HybridFields) -> type[nn.Module]:
    """The causal language model class for a hybrid's config."""
    return HYBRIDS[config.model_type.removeprefix('hybrid_')][2]


for _config, _model, _causal_lm in HYBRIDS.values():
    AutoConfig.register(_config.model_type, _config)
    register_model(AutoModel, _config, _model)
    register_model(AutoModelForCausalLM, _config, _causal_lm)
