"""Hybrid decoders with heads for classification and question answering.

Each is the Transformer's own class around the hybrid decoder, registered with
``AutoModelForSequenceClassification``, ``AutoModelForTokenClassification`` or
``AutoModelForQuestionAnswering``. A family has the same heads as its Transformer. Each
head can load the decoder weights from a language model's folder, because the decoder
has the same name. The classes are written explicitly for the reason given in
:mod:`mmtransmamba.models.language.families`.
"""

from __future__ import annotations

from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    LlamaForQuestionAnswering,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
    MistralForQuestionAnswering,
    MistralForSequenceClassification,
    MistralForTokenClassification,
    PhiForSequenceClassification,
    PhiForTokenClassification,
    Qwen2ForQuestionAnswering,
    Qwen2ForSequenceClassification,
    Qwen2ForTokenClassification,
    Qwen3ForQuestionAnswering,
    Qwen3ForSequenceClassification,
    Qwen3ForTokenClassification,
)

from mmtransmamba.models.language.cache_names import either_name
from mmtransmamba.models.language.families import (
    HybridLlamaConfig,
    HybridMistralConfig,
    HybridPhiConfig,
    HybridQwen2Config,
    HybridQwen3Config,
)
from mmtransmamba.models.language.hybrid import HybridInitMixin
from mmtransmamba.models.language.registration import register_model


class HybridLlamaForSequenceClassification(
    HybridInitMixin, LlamaForSequenceClassification
):
    """Llama with Mamba layers for sequence classification."""

    config_class = HybridLlamaConfig
    forward = either_name(LlamaForSequenceClassification.forward)


class HybridLlamaForTokenClassification(HybridInitMixin, LlamaForTokenClassification):
    """Llama with Mamba layers for token classification."""

    config_class = HybridLlamaConfig
    forward = either_name(LlamaForTokenClassification.forward)


class HybridLlamaForQuestionAnswering(HybridInitMixin, LlamaForQuestionAnswering):
    """Llama with Mamba layers for extractive question answering."""

    config_class = HybridLlamaConfig
    base_model_prefix = 'model'
    forward = either_name(LlamaForQuestionAnswering.forward)


class HybridMistralForSequenceClassification(
    HybridInitMixin, MistralForSequenceClassification
):
    """Mistral with Mamba layers for sequence classification."""

    config_class = HybridMistralConfig
    forward = either_name(MistralForSequenceClassification.forward)


class HybridMistralForTokenClassification(
    HybridInitMixin, MistralForTokenClassification
):
    """Mistral with Mamba layers for token classification."""

    config_class = HybridMistralConfig
    forward = either_name(MistralForTokenClassification.forward)


class HybridMistralForQuestionAnswering(HybridInitMixin, MistralForQuestionAnswering):
    """Mistral with Mamba layers for extractive question answering."""

    config_class = HybridMistralConfig
    forward = either_name(MistralForQuestionAnswering.forward)


class HybridPhiForSequenceClassification(HybridInitMixin, PhiForSequenceClassification):
    """Phi with Mamba layers for sequence classification."""

    config_class = HybridPhiConfig
    forward = either_name(PhiForSequenceClassification.forward)


class HybridPhiForTokenClassification(HybridInitMixin, PhiForTokenClassification):
    """Phi with Mamba layers for token classification."""

    config_class = HybridPhiConfig
    forward = either_name(PhiForTokenClassification.forward)


class HybridQwen2ForSequenceClassification(
    HybridInitMixin, Qwen2ForSequenceClassification
):
    """Qwen2 with Mamba layers for sequence classification."""

    config_class = HybridQwen2Config
    forward = either_name(Qwen2ForSequenceClassification.forward)


class HybridQwen2ForTokenClassification(HybridInitMixin, Qwen2ForTokenClassification):
    """Qwen2 with Mamba layers for token classification."""

    config_class = HybridQwen2Config
    forward = either_name(Qwen2ForTokenClassification.forward)


class HybridQwen2ForQuestionAnswering(HybridInitMixin, Qwen2ForQuestionAnswering):
    """Qwen2 with Mamba layers for extractive question answering."""

    config_class = HybridQwen2Config
    base_model_prefix = 'model'
    forward = either_name(Qwen2ForQuestionAnswering.forward)


class HybridQwen3ForSequenceClassification(
    HybridInitMixin, Qwen3ForSequenceClassification
):
    """Qwen3 with Mamba layers for sequence classification."""

    config_class = HybridQwen3Config
    forward = either_name(Qwen3ForSequenceClassification.forward)


class HybridQwen3ForTokenClassification(HybridInitMixin, Qwen3ForTokenClassification):
    """Qwen3 with Mamba layers for token classification."""

    config_class = HybridQwen3Config
    forward = either_name(Qwen3ForTokenClassification.forward)


class HybridQwen3ForQuestionAnswering(HybridInitMixin, Qwen3ForQuestionAnswering):
    """Qwen3 with Mamba layers for extractive question answering."""

    config_class = HybridQwen3Config
    base_model_prefix = 'model'
    forward = either_name(Qwen3ForQuestionAnswering.forward)


HEADS = {
    AutoModelForSequenceClassification: (
        HybridLlamaForSequenceClassification,
        HybridMistralForSequenceClassification,
        HybridPhiForSequenceClassification,
        HybridQwen2ForSequenceClassification,
        HybridQwen3ForSequenceClassification,
    ),
    AutoModelForTokenClassification: (
        HybridLlamaForTokenClassification,
        HybridMistralForTokenClassification,
        HybridPhiForTokenClassification,
        HybridQwen2ForTokenClassification,
        HybridQwen3ForTokenClassification,
    ),
    AutoModelForQuestionAnswering: (
        HybridLlamaForQuestionAnswering,
        HybridMistralForQuestionAnswering,
        HybridQwen2ForQuestionAnswering,
        HybridQwen3ForQuestionAnswering,
    ),
}
"""Hybrids with another head than a language model's, by their auto class."""

for _auto_class, _models in HEADS.items():
    for _model in _models:
        register_model(_auto_class, _model.config_class, _model)
