"""Make a class known to transformers under everything it looks a class up by."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig, PreTrainedModel
from transformers.models.auto import modeling_auto

_NAMES = {
    'AutoModel': ('MODEL_MAPPING_NAMES',),
    'AutoModelForCausalLM': ('MODEL_FOR_CAUSAL_LM_MAPPING_NAMES',),
    # Trainer's label smoothing shifts the labels of causal language models alone, and
    # that is what these are besides.
    'AutoModelForImageTextToText': (
        'MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES',
        'MODEL_FOR_CAUSAL_LM_MAPPING_NAMES',
    ),
    'AutoModelForSequenceClassification': (
        'MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES',
    ),
    'AutoModelForTokenClassification': (
        'MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES',
    ),
    'AutoModelForQuestionAnswering': ('MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES',),
}


def register_model(
    auto_class: Any, config_cls: type[PretrainedConfig], model: type[PreTrainedModel]
) -> None:
    """Register a model with an auto class, as a class and as a name.

    An auto class finds what was registered with it, but Trainer (label smoothing),
    model cards and the pipelines ask by the names of classes, in tables that
    ``register`` leaves as they are.

    Args:
        auto_class: One of transformers' ``AutoModel...``.
        config_cls: The config to find the model by.
        model: The model.
    """
    auto_class.register(config_cls, model)
    for table in _NAMES[auto_class.__name__]:
        names = getattr(modeling_auto, table)
        names[config_cls.model_type] = model.__name__
