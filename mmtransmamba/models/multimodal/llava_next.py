"""LLaVA-NeXT, which cuts an image into tiles, around the hybrids of this package."""

from __future__ import annotations

from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextModel,
    LlavaNextPreTrainedModel,
    LlavaNextProcessor,
)

import mmtransmamba.models.language.families  # noqa: F401  (registers the decoders)
from mmtransmamba.models.language.arguments import known_arguments
from mmtransmamba.models.language.cache_names import either_name
from mmtransmamba.models.language.hybrid import HybridCausalLMMixin, HybridInitMixin
from mmtransmamba.models.language.registration import register_model


class HybridLlavaNextConfig(LlavaNextConfig):
    """Config of :class:`HybridLlavaNextForConditionalGeneration`."""

    model_type = 'hybrid_llava_next'


class HybridLlavaNextModel(HybridInitMixin, LlavaNextModel):
    """Vision tower, projector, end-of-row embedding and decoder."""

    config_class = HybridLlavaNextConfig
    forward = either_name(
        known_arguments('use_cache', 'seq_idx')(LlavaNextModel.forward)
    )


class HybridLlavaNextForConditionalGeneration(
    HybridCausalLMMixin, LlavaNextForConditionalGeneration
):
    """Vision tower, projector, decoder and language-modelling head."""

    config_class = HybridLlavaNextConfig
    forward = either_name(LlavaNextForConditionalGeneration.forward)

    def __init__(self, config: HybridLlavaNextConfig) -> None:
        LlavaNextPreTrainedModel.__init__(self, config)
        self.model = HybridLlavaNextModel(config)
        text = config.text_config
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        self.post_init()


AutoConfig.register(HybridLlavaNextConfig.model_type, HybridLlavaNextConfig)
register_model(AutoModel, HybridLlavaNextConfig, HybridLlavaNextModel)
register_model(
    AutoModelForImageTextToText,
    HybridLlavaNextConfig,
    HybridLlavaNextForConditionalGeneration,
)
AutoProcessor.register(HybridLlavaNextConfig, LlavaNextProcessor)
