"""The files of a transformers folder that are neither weights nor its config."""

from __future__ import annotations

import shutil
from pathlib import Path

COMPANIONS = (
    'tokenizer*',
    'vocab*',
    'merges.txt',
    'special_tokens*',
    'added_tokens.json',
    '*.model',
    'chat_template*',
    'generation_config.json',
)
"""Patterns of tokenizer, chat template and generation settings."""


def copy_companions(source: str | Path, target: str | Path) -> None:
    """Copy tokenizer, chat template and generation settings that are not there yet.

    Args:
        source: Folder of a transformers model.
        target: Folder of another one.
    """
    for pattern in COMPANIONS:
        for file in sorted(Path(source).glob(pattern)):
            copy = Path(target) / file.name
            if file.is_file() and not copy.exists():
                shutil.copy2(file, copy)
