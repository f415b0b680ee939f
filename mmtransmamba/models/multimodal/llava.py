"""LLaVA around any decoder, including the hybrids of this package.

transformers' own LLaVA accepts every text model, but gives each a language-modelling
head without bias, and does not handle recurrent states, which cannot be rolled back.
"""

from __future__ import annotations

from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaModel,
    LlavaPreTrainedModel,
    LlavaProcessor,
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


class HybridLlavaForConditionalGeneration(
    HybridCausalLMMixin, LlavaForConditionalGeneration
):
    """Vision tower, projector, decoder and language-modelling head."""

    config_class = HybridLlavaConfig
    forward = either_name(LlavaForConditionalGeneration.forward)

    def __init__(self, config: HybridLlavaConfig) -> None:
        LlavaPreTrainedModel.__init__(self, config)
        self.model = HybridLlavaModel(config)
        text = config.text_config
        self.lm_head = nn.Linear(
            text.hidden_size, text.vocab_size, bias=config.lm_head_bias
        )
        self.post_init()


AutoConfig.register(HybridLlavaConfig.model_type, HybridLlavaConfig)
register_model(AutoModel, HybridLlavaConfig, HybridLlavaModel)
register_model(
    AutoModelForImageTextToText, HybridLlavaConfig, HybridLlavaForConditionalGeneration
)
AutoProcessor.register(HybridLlavaConfig, LlavaProcessor)
