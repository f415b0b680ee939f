"""Files of a model folder other than weights and config."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from mmtransmamba.utils.processors import load_processor

COMPANIONS = (
    'tokenizer*',
    'vocab*',
    'merges.txt',
    'special_tokens*',
    'added_tokens.json',
    '*.model',
    'chat_template*',
    'additional_chat_templates/*.jinja',
    'generation_config.json',
    'processor_config.json',
    'preprocessor_config.json',
    'video_preprocessor_config.json',
    'image_processor_config.json',
)
"""Patterns of tokenizer, processor, chat template and generation settings."""


def copy_companions(source: str | Path, target: str | Path) -> None:
    """Copy tokenizer, processor, chat template and generation settings.

    Existing files are kept.

    Args:
        source: Folder of a transformers model.
        target: Folder of another one.
    """
    for pattern in COMPANIONS:
        for file in sorted(Path(source).glob(pattern)):
            copy = Path(target) / file.relative_to(source)
            if file.is_file() and not copy.exists():
                copy.parent.mkdir(exist_ok=True)
                shutil.copy2(file, copy)


class Companions:
    """The tokenizer or processor of a model, in a folder or in memory.

    Args:
        folder: Folder of the model, None if it has none.
        processor: Its processor in memory.
    """

    def __init__(self, folder: str | None = None, processor: Any = None) -> None:
        self.folder = folder
        self._processor = processor

    @property
    def in_memory(self) -> Any | None:
        """The processor, if it is already in memory."""
        return self._processor

    @property
    def processor(self) -> Any:
        """The processor, read from the folder on first access.

        Raises:
            ValueError: It is missing or cannot be read.
        """
        if self._processor is None:
            if self.folder is None:
                raise ValueError(
                    'A model that answers questions needs a processor; give '
                    'processor=FOLDER.'
                )
            self._processor = load_processor(self.folder)
        return self._processor

    def save(self, folder: str | Path) -> None:
        """Copy them to the folder of another model."""
        if self.folder is not None:
            copy_companions(self.folder, folder)
        elif self._processor is not None:
            self._processor.save_pretrained(folder)
