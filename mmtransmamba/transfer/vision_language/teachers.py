"""Vision-language models whose weights are taken, from memory or from a folder."""

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
from mmtransmamba.models.fit import load_folder
from mmtransmamba.transfer.language.assemble import assemble
from mmtransmamba.transfer.language.sources import (
    StateDictSource,
    TensorSource,
    open_folder,
)
from mmtransmamba.transfer.vision_language.sources import (
    language_part,
    under_canonical_names,
)
from mmtransmamba.utils.model_files import read_model_config


def is_vision_language(teacher: nn.Module | str | Path) -> bool:
    """Whether a model, or a folder that holds one, has a text model inside.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    if isinstance(teacher, nn.Module):
        return getattr(teacher.config, 'text_config', None) is not None
    return 'text_config' in read_model_config(teacher)


def read_vlm(teacher: nn.Module | str | Path) -> tuple[Any, TensorSource]:
    """Config and tensors of a vision-language model, or of a folder that holds one.

    The folder's weights are read one tensor at a time.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    if isinstance(teacher, nn.Module):
        source = StateDictSource(teacher.state_dict())
        return teacher.config, under_canonical_names(source)
    source = under_canonical_names(open_folder(teacher))
    config = AutoConfig.from_pretrained(
        str(teacher), local_files_only=True, trust_remote_code=False
    )
    return config, source


def load_vlm(folder: str | Path) -> nn.Module:
    """The vision-language model of a folder, a hybrid of this package included.

    Nothing is downloaded, and no code in the folder is run.

    Raises:
        FileNotFoundError: There is no such folder.
        CheckpointError: The folder's tensors are not those of its config.
    """
    return load_folder(AutoModelForImageTextToText, folder)


def language_model_of(teacher: nn.Module | str | Path) -> nn.Module:
    """The causal language model inside a vision-language model.

    It shares the weights of a model in memory.

    Args:
        teacher: A transformers vision-language model, or its folder.
    """
    config, source = read_vlm(teacher)
    text = config.get_text_config()
    model_class = AutoModelForCausalLM._model_mapping[type(text)]
    part = dict(language_part(source))
    if text.tie_word_embeddings:
        part.pop('lm_head.weight', None)
    return assemble(model_class, text, part.items())
