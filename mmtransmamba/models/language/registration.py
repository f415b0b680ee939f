"""Registration of a class in all tables in which transformers looks classes up."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig, PreTrainedModel
from transformers.models.auto import modeling_auto

_NAMES = {
    'AutoModel': ('MODEL_MAPPING_NAMES',),
    'AutoModelForCausalLM': ('MODEL_FOR_CAUSAL_LM_MAPPING_NAMES',),
    # Trainer's label smoothing shifts the labels only for causal language models, and
    # these models are causal language models too.
    'AutoModelForImageTextToText': (
        'MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES',
        'MODEL_FOR_CAUSAL_LM_MAPPING_NAMES',
    ),
    'AutoModelForImageClassification': (
        'MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES',
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
    auto_class: Any,
    config_cls: type[PretrainedConfig],
    model: type[PreTrainedModel],
    *others: type[PreTrainedModel],
) -> None:
    """Register a model with an auto class, as a class and as a name.

    An auto class finds models registered with it, but Trainer (label smoothing), model
    cards and the pipelines look up class names in tables that ``register`` does not
    update.

    Args:
        auto_class: One of transformers' ``AutoModel...``.
        config_cls: The config class of the model.
        model: The model.
        *others: Further models with this config; a folder's config names its own.
    """
    several = (model, *others)
    auto_class.register(config_cls, several if others else model)
    for table in _NAMES[auto_class.__name__]:
        names = getattr(modeling_auto, table)
        known = tuple(each.__name__ for each in several)
        names[config_cls.model_type] = known if others else model.__name__
