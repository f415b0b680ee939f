"""LLaVA-OneVision, around the hybrids of this package.

Like LLaVA-NeXT's, an image is cut into tiles. If they have too many tokens together,
the grid of tokens is scaled down: with ``anyres_max_9``, to the number in nine tiles.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionModel,
    LlavaOnevisionProcessor,
)

from mmtransmamba.models.language.arguments import known_arguments
from mmtransmamba.models.language.cache_names import either_name
from mmtransmamba.models.language.hybrid import HybridInitMixin
from mmtransmamba.models.language.registration import register_model
from mmtransmamba.models.multimodal.llava import HybridLlavaMixin


class HybridLlavaOnevisionConfig(LlavaOnevisionConfig):
    """Config of :class:`HybridLlavaOnevisionForConditionalGeneration`."""

    model_type = 'hybrid_llava_onevision'


class HybridLlavaOnevisionModel(HybridInitMixin, LlavaOnevisionModel):
    """Vision tower, projector, end-of-row embedding and decoder."""

    config_class = HybridLlavaOnevisionConfig

    @either_name
    @known_arguments('use_cache', 'seq_idx', 'logits_to_keep')
    @wraps(LlavaOnevisionModel.forward)
    def forward(self, *args: Any, logits_to_keep: Any = None, **kwargs: Any) -> Any:
        """Like LLaVA-OneVision's own.

        ``logits_to_keep`` arrives from the head, which applies it; here it has no use.
        """
        return super().forward(*args, **kwargs)


class HybridLlavaOnevisionForConditionalGeneration(
    HybridLlavaMixin, LlavaOnevisionForConditionalGeneration
):
    """Vision tower, projector, decoder and language-modelling head."""

    config_class, model_class = HybridLlavaOnevisionConfig, HybridLlavaOnevisionModel
    forward = either_name(LlavaOnevisionForConditionalGeneration.forward)


AutoConfig.register(HybridLlavaOnevisionConfig.model_type, HybridLlavaOnevisionConfig)
register_model(AutoModel, HybridLlavaOnevisionConfig, HybridLlavaOnevisionModel)
register_model(
    AutoModelForImageTextToText,
    HybridLlavaOnevisionConfig,
    HybridLlavaOnevisionForConditionalGeneration,
)
AutoProcessor.register(HybridLlavaOnevisionConfig, LlavaOnevisionProcessor)
