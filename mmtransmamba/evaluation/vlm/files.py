"""Reading of the file formats in which benchmarks are published."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmtransmamba.utils.text_files import (
    parse_json_lines,
    read_json,
    read_table,
    read_text,
)

__all__ = ['Row', 'find_file', 'read_json', 'read_rows', 'read_text']


class Row(dict):
    """A record that knows its source, for the message about a missing key."""

    def __init__(self, values: dict, where: str) -> None:
        super().__init__(values)
        self.where = where

    def __missing__(self, key: str) -> Any:
        known = ', '.join(map(str, list(self)[:12]))
        more = ', …' if len(self) > 12 else ''
        raise ValueError(f'{self.where} has no "{key}", but {known}{more}.')


def find_file(folder: str | Path, *names: str, optional: bool = False) -> Path | None:
    """The first of these files that exists in a folder, plain or with ``.gz``.

    Args:
        folder: Folder to search; or a file, which is then returned.
        names: Names or patterns, in order of preference.
        optional: Return None instead of raising an error.

    Raises:
        FileNotFoundError: None of the files exists.
    """
    folder = Path(folder)
    if folder.is_file() and not optional:
        return folder
    for name in names:
        for pattern in (name, f'{name}.gz'):
            found = sorted(folder.glob(pattern))
            if found:
                return found[0]
    if optional:
        return None
    raise FileNotFoundError(f'{folder} has none of {", ".join(names)} (also with .gz).')


def read_rows(path: str | Path) -> list[Row]:
    """The records of a table: JSON Lines, a JSON list, or TSV with a header.

    The suffix is not reliable: some ``.json`` files of benchmarks are JSON Lines.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file has none of these formats.
    """
    path = Path(path)
    if '.tsv' in path.suffixes:
        _, rows = read_table(path, '\t')
        return [Row(row, f'{path}, row {n}') for n, row in enumerate(rows, 1)]
    text = read_text(path)
    if text.lstrip().startswith('['):
        return _rows(path, '{0}, record {2}', enumerate(read_json(path), 1))
    return rows_of_lines(text, path)


def rows_of_lines(text: str, path: str | Path) -> list[Row]:
    """The records of JSON Lines.

    Args:
        text: The lines.
        path: Their file, for errors.

    Raises:
        ValueError: A line is not a JSON object.
    """
    return _rows(path, '{}, line {}, record {}', parse_json_lines(text, path))


def _rows(
    path: str | Path, where: str, numbered: Iterable[tuple[int, Any]]
) -> list[Row]:
    records = list(numbered)
    for number, record in records:
        if not isinstance(record, dict):
            raise ValueError(
                f'{path}, record {number} is not a JSON object: {record!r}'
            )
    return [
        Row(record, where.format(path, number, count))
        for count, (number, record) in enumerate(records, 1)
    ]
