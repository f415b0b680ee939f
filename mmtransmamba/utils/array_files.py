"""Reading of ``.npz`` files, with messages that name the file."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np


@contextmanager
def open_arrays(path: str | Path) -> Iterator[np.lib.npyio.NpzFile]:
    """An ``.npz`` file whose arrays can be read within the block.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is truncated or damaged, is not an ``.npz``, or contains
            Python objects.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'There is no file "{path}".')
    try:
        content = np.load(path)
        if not isinstance(content, np.lib.npyio.NpzFile):
            raise ValueError(f'"{path}" is a single array; give an .npz file.')
        with content:
            yield content
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f'"{path}" is not a complete .npz file: {error}.') from error
    except ValueError as error:
        # numpy's own message for pickles, raised on opening or reading an array.
        if 'pickle' not in str(error):
            raise
        raise ValueError(
            f'"{path}" is not an .npz file of numbers, or it holds Python objects, '
            'which are not read because reading them would run code.'
        ) from error
