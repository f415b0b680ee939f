"""The files of a transformers folder that are neither weights nor its config."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from mmtransmamba.utils.text_files import read_json

COMPANIONS = (
    'tokenizer*',
    'vocab*',
    'merges.txt',
    'special_tokens*',
    'added_tokens.json',
    '*.model',
    'chat_template*',
    'generation_config.json',
    'processor_config.json',
    'preprocessor_config.json',
    'image_processor_config.json',
)
"""Patterns of tokenizer, processor, chat template and generation settings."""


def copy_companions(source: str | Path, target: str | Path) -> None:
    """Copy tokenizer, processor, chat template and generation settings.

    What is there already stays.

    Args:
        source: Folder of a transformers model.
        target: Folder of another one.
    """
    for pattern in COMPANIONS:
        for file in sorted(Path(source).glob(pattern)):
            copy = Path(target) / file.name
            if file.is_file() and not copy.exists():
                shutil.copy2(file, copy)


_SIZES = (
    *('hidden_size', 'intermediate_size', 'num_hidden_layers', 'vocab_size'),
    *('num_attention_heads', 'num_key_value_heads', 'head_dim'),
)


def read_model_config(folder: str | Path) -> dict[str, Any]:
    """The fields of a model folder's ``config.json``.

    Raises:
        FileNotFoundError: There is no such folder, or no config in it.
        ValueError: The file is no config, or a size in it is not a positive number.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f'No model folder at {folder}.')
    path = Path(folder) / 'config.json'
    if not path.is_file():
        raise FileNotFoundError(f'The folder {folder} has no config.json.')
    fields = read_json(path)
    if not isinstance(fields, dict) or not fields:
        held = str(fields)[:40]
        raise ValueError(f'{path} is no config of a model: it holds {held}.')
    check_sizes(fields, f'{path}: ')
    return fields


def check_sizes(fields: dict[str, Any], where: str = '') -> None:
    """Check that what counts heads, layers and channels counts some.

    Raises:
        ValueError: A size is not a whole positive number.
    """
    for name in _SIZES:
        size = fields.get(name)
        if size is not None and (not isinstance(size, int) or size < 1):
            raise ValueError(
                f'{where}{name}={size!r} must be a whole number, 1 at least.'
            )


def load_tokenizer(folder: str | Path) -> Any:
    """The tokenizer of a folder; nothing is downloaded, and no code there is run.

    Raises:
        ValueError: The folder has none that can be read.
    """
    from transformers import AutoTokenizer

    return _load(AutoTokenizer, folder, 'tokenizer')


def load_processor(folder: str | Path) -> Any:
    """The processor of a folder, as :func:`load_tokenizer`."""
    from transformers import AutoProcessor

    return _load(AutoProcessor, folder, 'processor')


def _load(auto_class: Any, folder: str | Path, what: str) -> Any:
    try:
        return auto_class.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:
        # A broken file ends in whatever its reader meets. The first sentence says
        # what; the others are advice on a hub that is not asked here.
        reason = str(error).strip().split('\n')[0].split('. ')[0]
        raise ValueError(
            f'No {what} can be read from "{folder}": {reason or type(error).__name__}'
        ) from error


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
        """The processor, if it is in memory already."""
        return self._processor

    @property
    def processor(self) -> Any:
        """The processor, read from the folder when it is first asked for.

        Raises:
            ValueError: There is none, or it cannot be read.
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
        """Put them into the folder of another model."""
        if self.folder is not None:
            copy_companions(self.folder, folder)
        elif self._processor is not None:
            self._processor.save_pretrained(folder)
