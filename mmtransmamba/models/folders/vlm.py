"""Vision-language models in memory or in a folder: config, tensors, the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
)

import mmtransmamba.models.multimodal.llava  # noqa: F401  (registers the models)
import mmtransmamba.models.multimodal.llava_next  # noqa: F401
import mmtransmamba.models.multimodal.llava_onevision  # noqa: F401
from mmtransmamba.compat import model_classes
from mmtransmamba.models.folders.assemble import assemble
from mmtransmamba.models.folders.canonical_names import (
    language_part,
    under_canonical_names,
)
from mmtransmamba.models.folders.config import read_model_config
from mmtransmamba.models.folders.loading import load_folder
from mmtransmamba.models.folders.published import is_published_vlm, read_published
from mmtransmamba.models.folders.sources import (
    StateDictSource,
    TensorSource,
    open_folder,
)


def is_vision_language(model: nn.Module | str | Path) -> bool:
    """Whether a model, or a folder that contains one, has a text model inside.

    Raises:
        FileNotFoundError: The folder does not exist.
    """
    if isinstance(model, nn.Module):
        return getattr(model.config, 'text_config', None) is not None
    raw = read_model_config(model)
    return 'text_config' in raw or is_published_vlm(raw)


def read_vlm(model: nn.Module | str | Path) -> tuple[Any, TensorSource]:
    """Config and tensors of a vision-language model, or of a folder that contains one.

    The folder's weights are read one tensor at a time.

    Raises:
        FileNotFoundError: The folder does not exist.
    """
    if isinstance(model, nn.Module):
        source = StateDictSource(model.state_dict())
        return model.config, under_canonical_names(source)
    published = read_published(model, read_model_config(model))
    if published is not None:
        return published.config, published.source
    source = under_canonical_names(open_folder(model))
    config = AutoConfig.from_pretrained(
        str(model), local_files_only=True, trust_remote_code=False
    )
    return config, source


def load_vlm(folder: str | Path) -> nn.Module:
    """The vision-language model of a folder, possibly a hybrid of this package.

    Nothing is downloaded, and no code in the folder is run.

    Raises:
        FileNotFoundError: The folder does not exist.
        CheckpointError: The folder's tensors do not match its config.
        ValueError: A field of a published config cannot be read.
    """
    published = read_published(folder, read_model_config(folder))
    if published is not None:
        return published.build(folder, has_vision=True)
    return load_folder(AutoModelForImageTextToText, folder)


def language_model_of(model: nn.Module | str | Path) -> nn.Module:
    """The causal language model inside a vision-language model.

    It shares the weights of a model in memory.

    Args:
        model: A transformers vision-language model, or its folder.
    """
    config, source = read_vlm(model)
    text = config.get_text_config()
    model_class = model_classes(AutoModelForCausalLM)[type(text)]
    part = dict(language_part(source))
    if text.tie_word_embeddings:
        part.pop('lm_head.weight', None)
    return assemble(model_class, text, part.items())
