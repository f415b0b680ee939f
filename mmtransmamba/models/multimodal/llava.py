"""LLaVA around any decoder, including the hybrids of this package.

transformers' own LLaVA accepts every text model, but gives each a language-modelling
head without bias, and does not handle recurrent states, which cannot be rolled back.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaModel,
    LlavaProcessor,
    PreTrainedModel,
)

import mmtransmamba.models.language.families  # noqa: F401  (registers the decoders)
import mmtransmamba.models.vision.families  # noqa: F401  (registers the towers)
from mmtransmamba.models.language.arguments import known_arguments
from mmtransmamba.models.language.cache_names import either_name
from mmtransmamba.models.language.hybrid import HybridCausalLMMixin, HybridInitMixin
from mmtransmamba.models.language.registration import register_model


class HybridLlavaConfig(LlavaConfig):
    """Config of :class:`HybridLlavaForConditionalGeneration`.

    Attributes:
        lm_head_bias: Whether the language-modelling head has a bias, as in Phi.
    """

    model_type = 'hybrid_llava'

    lm_head_bias: bool = False


class HybridLlavaModel(HybridInitMixin, LlavaModel):
    """Vision tower, projector and decoder."""

    config_class = HybridLlavaConfig
    forward = either_name(known_arguments('use_cache', 'seq_idx')(LlavaModel.forward))


class HybridLlavaMixin(HybridCausalLMMixin):
    """A LLaVA of any kind, around the hybrid's own model.

    Attributes:
        model_class: Class of vision tower, projector and decoder.
    """

    model_class: type[PreTrainedModel]

    def __init__(self, config: Any) -> None:
        PreTrainedModel.__init__(self, config)
        self.model = self.model_class(config)
        text = config.text_config
        bias = getattr(config, 'lm_head_bias', False)
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=bias)
        self.post_init()


class HybridLlavaForConditionalGeneration(
    HybridLlavaMixin, LlavaForConditionalGeneration
):
    """Vision tower, projector, decoder and language-modelling head."""

    config_class, model_class = HybridLlavaConfig, HybridLlavaModel
    forward = either_name(LlavaForConditionalGeneration.forward)


AutoConfig.register(HybridLlavaConfig.model_type, HybridLlavaConfig)
register_model(AutoModel, HybridLlavaConfig, HybridLlavaModel)
register_model(
    AutoModelForImageTextToText, HybridLlavaConfig, HybridLlavaForConditionalGeneration
)
AutoProcessor.register(HybridLlavaConfig, LlavaProcessor)
