"""LLaVA-NeXT, which cuts an image into tiles, around the hybrids of this package."""

from __future__ import annotations

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextModel,
    LlavaNextProcessor,
)

from mmtransmamba.models.language.arguments import known_arguments
from mmtransmamba.models.language.cache_names import either_name
from mmtransmamba.models.language.hybrid import HybridInitMixin
from mmtransmamba.models.language.registration import register_model
from mmtransmamba.models.multimodal.llava import HybridLlavaMixin


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
    HybridLlavaMixin, LlavaNextForConditionalGeneration
):
    """Vision tower, projector, decoder and language-modelling head."""

    config_class, model_class = HybridLlavaNextConfig, HybridLlavaNextModel
    forward = either_name(LlavaNextForConditionalGeneration.forward)


AutoConfig.register(HybridLlavaNextConfig.model_type, HybridLlavaNextConfig)
register_model(AutoModel, HybridLlavaNextConfig, HybridLlavaNextModel)
register_model(
    AutoModelForImageTextToText,
    HybridLlavaNextConfig,
    HybridLlavaNextForConditionalGeneration,
)
AutoProcessor.register(HybridLlavaNextConfig, LlavaNextProcessor)
