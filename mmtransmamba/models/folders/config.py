"""Reading and checking the ``config.json`` of a model folder before it is used."""

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
        FileNotFoundError: The folder or its config does not exist.
        ValueError: The file is not a config, or a size in it is not a positive number.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f'No model folder at {folder}.')
    path = Path(folder) / 'config.json'
    if not path.is_file():
        raise FileNotFoundError(f'The folder {folder} has no config.json.')
    fields = read_json(path)
    if not isinstance(fields, dict) or not fields:
        held = str(fields)[:40]
        raise ValueError(f'{path} is not a config of a model: it holds {held}.')
    check_sizes(fields, f'{path}: ')
    return fields


def check_sizes(fields: dict[str, Any], where: str = '') -> None:
    """Check that the numbers of heads, layers and channels are positive.

    Raises:
        ValueError: A size is not a whole positive number.
    """
    for name in _SIZES:
        size = fields.get(name)
        if size is not None and (not isinstance(size, int) or size < 1):
            raise ValueError(
                f'{where}{name}={size!r} must be a whole number, 1 at least.'
            )
