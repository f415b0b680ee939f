"""Detection of the published layout of a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from mmtransmamba.models.folders.assemble import assemble
from mmtransmamba.models.folders.generation_settings import generation_config_of
from mmtransmamba.models.folders.published.hovle import ENDS, is_hovle, read_hovle
from mmtransmamba.models.folders.published.llava import is_llava, read_llava
from mmtransmamba.models.folders.published.llava_templates import llava_ends
from mmtransmamba.models.folders.published.mamba_in_llama import (
    MAMBA_CONFIG,
    read_mamba_in_llama,
)
from mmtransmamba.models.folders.published.mohawk import (
    LLAMBA_ENDS,
    is_mohawk,
    read_mohawk,
)
from mmtransmamba.models.folders.published.tinyllava import read_tinyllava
from mmtransmamba.models.folders.sources import TensorSource, open_folder
from mmtransmamba.models.generation import repair_generation_config


@dataclass(frozen=True)
class Published:
    """A model in a published folder, as one of transformers or of this package.

    Attributes:
        model_class: Its class in this package or transformers.
        config: Its config for this class.
        source: Its tensors under the names of ``model_class``.
        ends: Tokens that end an answer, unless the folder specifies them.
        suppressed: Tokens that are never generated.
    """

    model_class: type
    config: Any
    source: TensorSource
    ends: list[int] | None = None
    suppressed: list[int] | None = None

    def build(self, folder: str | Path, has_vision: bool) -> nn.Module:
        """The model, with the generation settings of the folder.

        Args:
            folder: The published folder.
            has_vision: Whether a vision-language model is requested.

        Raises:
            ValueError: The model is of the other kind.
        """
        if has_vision != (getattr(self.config, 'text_config', None) is not None):
            wanted = 'vision-language' if has_vision else 'causal language'
            raise ValueError(
                f'The model in "{folder}" is a {self.config.model_type!r}, but it must '
                f'be a {wanted} model.'
            )
        model = assemble(self.model_class, self.config, self.source.items())
        given = generation_config_of(folder)
        if given is not None:
            model.generation_config = given
        elif self.ends:
            model.generation_config.eos_token_id = self.ends
        if self.suppressed:
            model.generation_config.suppress_tokens = self.suppressed
        repair_generation_config(model)
        return model


def is_published_vlm(raw: dict[str, Any]) -> bool:
    """Whether a ``config.json`` is that of a published vision-language layout."""
    return raw.get('model_type') == 'tinyllava' or is_hovle(raw) or is_llava(raw)


def read_published(folder: str | Path, raw: dict[str, Any]) -> Published | None:
    """The model of a folder in a published layout; None for other folders.

    No code in the folder is run.

    Args:
        folder: The folder.
        raw: Fields of its ``config.json``.

    Raises:
        CheckpointError: Tensors are missing, unexpected, of another shape or of
            integers.
        ValueError: A field of a config cannot be read.
    """
    if raw.get('model_type') == 'tinyllava':
        return Published(*read_tinyllava(folder, raw))
    if is_hovle(raw):
        model_class, config, source = read_hovle(folder, raw)
        image = config.image_token_id
        ends = [token for token in ENDS if token < config.text_config.vocab_size]
        return Published(model_class, config, source, ends, [image])
    if is_llava(raw):
        model_class, config, source = read_llava(folder, raw)
        ends = llava_ends(folder, config.text_config)
        return Published(model_class, config, source, ends)
    if is_mohawk(raw):
        model_class, config, source = read_mohawk(folder, raw)
        ends = [token for token in LLAMBA_ENDS if token < config.vocab_size]
        return Published(model_class, config, source, ends or None)
    if (Path(folder) / MAMBA_CONFIG).is_file():
        return Published(*read_mamba_in_llama(folder, raw, open_folder(folder)))
    return None
