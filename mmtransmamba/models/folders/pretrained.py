"""A pre-trained transformers model, opened once and passed on."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    GenerationConfig,
)

from mmtransmamba.compat import model_classes
from mmtransmamba.models.fit import check_depth, check_tied, refuse
from mmtransmamba.models.folders.canonical_names import canonical, language_part
from mmtransmamba.models.folders.companions import copy_companions
from mmtransmamba.models.folders.generation_settings import generation_config_of
from mmtransmamba.models.folders.gguf import (
    is_gguf,
    load_gguf,
    load_gguf_tokenizer,
)
from mmtransmamba.models.folders.lm import load_lm, read_lm
from mmtransmamba.models.folders.vlm import (
    is_vision_language,
    language_model_of,
    load_vlm,
    read_vlm,
)

# Old files have these buffers, and transformers drops them.
_UNUSED = r'rotary_emb\.inv_freq$|(^|\.)(position_ids|masked_bias)$'


class Pretrained:
    """A language or vision-language model in memory, in a folder or in a GGUF file.

    The folder's weights are read one tensor at a time, on access. A GGUF file is read
    into memory, with its quantised weights expanded.

    Args:
        model: The model, its folder, or its file (``.gguf``).

    Attributes:
        path: The folder, None for a model in memory or in a file.
        file: The GGUF file, None otherwise.
        is_vision_language: Whether it contains a text model.
        config: Its config; an InternLM2-style folder has that of a Llama.
        source: Its tensors; a vision-language model's under canonical names.

    Raises:
        FileNotFoundError: The folder or file does not exist.
        ImportError: A GGUF file needs packages that are not installed.
        TypeError: The model has no config, so it is not one of transformers.
        CheckpointError: The tensors belong to another number of layers, the folder has
            tensors that its config has not, or a tied head differs from the embedding.
    """

    def __init__(self, model: nn.Module | str | Path) -> None:
        self.file = None
        if not isinstance(model, nn.Module) and is_gguf(model):
            self.file, model = Path(model), load_gguf(model)
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
        check_tied(self.config.tie_word_embeddings, part, 'The teacher')
        self._check_names()

    def _check_names(self) -> None:
        """Refuse tensors that the model has not, as :meth:`load` does.

        A converter would leave them out, such as biases that the config does not have.
        Readers of published layouts refuse them themselves.
        """
        auto = (
            AutoModelForImageTextToText
            if self.is_vision_language
            else AutoModelForCausalLM
        )
        kind = model_classes(auto).get(type(self.config), None)
        quantised = getattr(self.config, 'quantization_config', None) is not None
        if self.path is None or kind is None or quantised:
            return
        with torch.device('meta'):
            model = kind(self.config)
        ignored = [_UNUSED, *(model._keys_to_ignore_on_load_unexpected or ())]
        known = {canonical(name) for name in model.state_dict()}
        refuse(
            f'The weights in "{self.path}" do not fit its config',
            unexpected=sorted(
                name
                for name in self.source
                if name not in known
                and not any(re.search(pattern, name) for pattern in ignored)
            ),
        )

    @cached_property
    def generation_config(self) -> GenerationConfig | None:
        """Its generation settings, None if not specified."""
        return generation_config_of(self.path or self._model)

    @property
    def tokenizer_folder(self) -> str | Path:
        """Its tokenizer or processor: a folder, or a GGUF file."""
        return self.path or self.file or self._model.name_or_path

    def save_companions(self, folder: str | Path) -> None:
        """Write tokenizer, processor and generation settings to another folder.

        A model in memory has none.
        """
        if self.path is not None:
            copy_companions(self.path, folder)
        elif self.file is not None:
            load_gguf_tokenizer(self.file).save_pretrained(folder)
            self.generation_config.save_pretrained(folder)

    def load(self) -> nn.Module:
        """The model; one in a folder is read anew by every call, to a GPU if there is
        one."""
        if self._model is not None:
            return self._model
        model = (load_vlm if self.is_vision_language else load_lm)(self.path)
        return model.to('cuda' if torch.cuda.is_available() else 'cpu')

    @cached_property
    def language(self) -> Pretrained:
        """The inner causal language model; itself if it is one."""
        if not self.is_vision_language:
            return self
        return Pretrained(language_model_of(self._model or self.path))
