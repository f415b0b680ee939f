"""The files that make up a config."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path


def chain(path: str | Path, depth: int = 0) -> Iterator[tuple[int, str]]:
    """A config file and its bases, each with its depth.

    A base of another package (``package::file``) is listed but not followed.

    Args:
        path: A Python config.
        depth: Depth of this file.

    Raises:
        FileNotFoundError: A base does not exist.
    """
    path = Path(path)
    yield depth, _relative(path)
    if path.suffix != '.py':
        return
    for base in bases(path):
        if '::' in base:
            yield depth + 1, base
            continue
        below = path.parent / base
        if not below.is_file():
            raise FileNotFoundError(
                f'{path} has the base "{base}", which is not a file'
            )
        yield from chain(below, depth + 1)


def bases(path: Path) -> list[str]:
    """The value of ``_base_`` in a Python config: no file, one, or several."""
    for node in ast.parse(path.read_text(encoding='utf-8')).body:
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == '_base_'
            for target in node.targets
        ):
            value = ast.literal_eval(node.value)
            return [value] if isinstance(value, str) else list(value)
    return []


def _relative(path: Path) -> str:
    """The shortest form of a path from the current folder."""
    path = path.resolve()
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
