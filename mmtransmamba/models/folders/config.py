"""The ``config.json`` of a model folder, read before anything relies on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmtransmamba.utils.text_files import read_json

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
