"""Which published layout a folder has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmtransmamba.models.folders.published.mamba_in_llama import (
    MAMBA_CONFIG,
    read_mamba_in_llama,
)
from mmtransmamba.models.folders.sources import TensorSource, open_folder


@dataclass(frozen=True)
class Published:
    """A model in a published folder, as one of transformers or of this package.

    Attributes:
        model_class: Its class here.
        config: Its config here.
        source: Its tensors under the names of ``model_class``.
    """

    model_class: type
    config: Any
    source: TensorSource


def is_published_vlm(raw: dict[str, Any]) -> bool:
    """Whether a ``config.json`` is that of a published vision-language layout."""
    return False


def read_published(folder: str | Path, raw: dict[str, Any]) -> Published | None:
    """The model of a folder in a published layout, None if it has none of them.

    No code in the folder is run.

    Args:
        folder: The folder.
        raw: Fields of its ``config.json``.

    Raises:
        CheckpointError: Tensors are missing, unexpected, of another shape or of
            integers.
        ValueError: A field of a config cannot be read.
    """
    if (Path(folder) / MAMBA_CONFIG).is_file():
        return Published(*read_mamba_in_llama(folder, raw, open_folder(folder)))
    return None
