"""A pre-trained transformers model, opened once and passed on."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from torch import nn
from transformers import GenerationConfig

from mmtransmamba.models.fit import check_depth
from mmtransmamba.models.folders.canonical_names import language_part
from mmtransmamba.models.folders.generation_settings import generation_config_of
from mmtransmamba.models.folders.lm import load_lm, read_lm
from mmtransmamba.models.folders.vlm import (
    is_vision_language,
    language_model_of,
    load_vlm,
    read_vlm,
)


class Pretrained:
    """A language or vision-language model in memory or in a folder.

    The folder's weights are read one tensor at a time, on access.

    Args:
        model: The model, or its folder.

    Attributes:
        path: The folder, None for a model in memory.
        is_vision_language: Whether it contains a text model.
        config: Its config; an InternLM2-style folder has that of a Llama.
        source: Its tensors; a vision-language model's under canonical names.

    Raises:
        FileNotFoundError: The folder does not exist.
        TypeError: The model has no config, so it is not one of transformers.
        CheckpointError: The tensors belong to another number of layers.
    """

    def __init__(self, model: nn.Module | str | Path) -> None:
        self._model = model if isinstance(model, nn.Module) else None
        if self._model is not None and not hasattr(model, 'config'):
            raise TypeError(
                f'teacher is a {type(model).__name__}; convert() takes transformers '
                'language and vision-language models. For a vision Transformer train a '
                'student with a config, or use inherit(student, teacher).'
            )
        self.path = None if self._model is not None else Path(model)
        self.is_vision_language = is_vision_language(model)
        self.config, self.source = (
            read_vlm(model) if self.is_vision_language else read_lm(model)
        )
        part = language_part(self.source) if self.is_vision_language else self.source
        check_depth(self.config, part, 'The teacher')

    @cached_property
    def generation_config(self) -> GenerationConfig | None:
        """Its generation settings, None if not specified."""
        return generation_config_of(self.path or self._model)

    @property
    def tokenizer_folder(self) -> str | Path:
        """Its tokenizer or processor."""
        return self.path or self._model.name_or_path

    def load(self) -> nn.Module:
        """The model; a model in a folder is read anew by every call."""
        if self._model is not None:
            return self._model
        return (load_vlm if self.is_vision_language else load_lm)(self.path)

    @cached_property
    def language(self) -> Pretrained:
        """The inner causal language model; itself if it is one."""
        if not self.is_vision_language:
            return self
        return Pretrained(language_model_of(self._model or self.path))
