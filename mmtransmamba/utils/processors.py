"""The tokenizer and the processor in the folder of a transformers model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

READERS: list[Callable[[str | Path], Any | None]] = []
"""Functions that read processors that transformers does not.

Each takes a folder, and returns None for one that it does not know.
"""


def load_tokenizer(folder: str | Path) -> Any:
    """The tokenizer of a folder; nothing is downloaded, and no code there is run.

    Args:
        folder: The folder, or a GGUF file (``.gguf``).

    Raises:
        ValueError: The folder has no readable tokenizer.
    """
    from transformers import AutoTokenizer

    path = Path(folder)
    if path.suffix == '.gguf' and path.is_file():
        file = dict(gguf_file=path.name)
        return _load(AutoTokenizer, path.parent, 'tokenizer', **file)
    return _load(AutoTokenizer, folder, 'tokenizer')


def load_processor(folder: str | Path) -> Any:
    """The processor of a folder, as :func:`load_tokenizer`."""
    for read in READERS:
        processor = read(folder)
        if processor is not None:
            return processor
    from transformers import AutoProcessor

    return _load(AutoProcessor, folder, 'processor')


def _load(auto_class: Any, folder: str | Path, what: str, **options: Any) -> Any:
    try:
        return auto_class.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False, **options
        )
    except Exception as error:
        # A broken file raises any error of its reader. The first sentence gives the
        # cause; the others are advice about a hub that is not used here.
        reason = str(error).strip().split('\n')[0].split('. ')[0]
        raise ValueError(
            f'No {what} can be read from "{folder}": {reason or type(error).__name__}'
        ) from error
