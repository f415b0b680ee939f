"""Places to write to on command lines, found out before any work. No imports."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path


def out_folder(text: str) -> Path:
    """A type for ``argparse``: a folder that can be made or written to.

    Raises:
        ArgumentTypeError: It is a file, or its folder cannot be written to.
    """
    return _writable(text, Path(text))


def out_file(text: str) -> Path:
    """A type for ``argparse``: a file that can be written.

    Raises:
        ArgumentTypeError: It is a folder, or its folder cannot be written to.
    """
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f'"{text}" is a folder; give a file')
    _writable(text, path.parent)
    return path


def _writable(text: str, folder: Path) -> Path:
    """Try to write into the innermost folder that is there; nothing is left of it."""
    inner = folder
    while not inner.exists() and inner != inner.parent:
        inner = inner.parent
    if not inner.is_dir():
        raise argparse.ArgumentTypeError(
            f'"{text}" cannot be written: "{inner}" is a file'
        )
    try:
        with tempfile.TemporaryFile(dir=inner):
            pass
    except OSError as error:
        raise argparse.ArgumentTypeError(
            f'"{text}" cannot be written: "{inner}": {error.strerror or error}'
        ) from error
    return folder
