"""Reading the files that benchmarks are published in."""

from __future__ import annotations

import csv
import gzip
import json
import sys
from pathlib import Path
from typing import Any


class Row(dict):
    """A record that knows where it is from, for the message about a missing key."""

    def __init__(self, values: dict, where: str) -> None:
        super().__init__(values)
        self.where = where

    def __missing__(self, key: str) -> Any:
        known = ', '.join(map(str, list(self)[:12]))
        more = ', …' if len(self) > 12 else ''
        raise ValueError(f'{self.where} has no "{key}", but {known}{more}.')


def find_file(folder: str | Path, *names: str, optional: bool = False) -> Path | None:
    """The first of these files that is in a folder, plain or with ``.gz``.

    Args:
        folder: Where to look; or a file, which is then the one.
        names: Names, or patterns, in the order of preference.
        optional: None instead of an error if there is none.

    Raises:
        FileNotFoundError: None of them is there.
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


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f'There is no file {path}.')
    opener = gzip.open if path.suffix == '.gz' else open
    try:
        with opener(path, 'rt', encoding='utf-8', newline='') as file:
            return file.read()
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f'{path} cannot be read as text: {error}') from error


def read_text(path: str | Path) -> str:
    """The text of a file, plain or with ``.gz``, with newlines as one character.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no text.
    """
    return _read_text(Path(path)).replace('\r\n', '\n')


def read_json(path: str | Path) -> Any:
    """The one document in a JSON file, plain or with ``.gz``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no JSON document.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f'{path} is no JSON document: {error}') from error


def read_rows(path: str | Path) -> list[Row]:
    """The records of a table: JSON Lines, a JSON list, or TSV with a header.

    The suffix says little: some ``.json`` files of benchmarks are JSON Lines.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is none of these.
    """
    path = Path(path)
    if '.tsv' in path.suffixes:
        # A column may hold a whole image.
        csv.field_size_limit(sys.maxsize)
        reader = csv.DictReader(_read_text(path).splitlines(True), delimiter='\t')
        return [Row(row, f'{path}, row {n}') for n, row in enumerate(reader, 1)]
    if read_text(path).lstrip().startswith('['):
        records = list(enumerate(read_json(path), 1))
    else:
        records = []
        for number, line in enumerate(read_text(path).split('\n'), 1):
            if line.strip():
                try:
                    records.append((number, json.loads(line)))
                except json.JSONDecodeError as error:
                    raise ValueError(f'{path}, line {number}: {error}') from error
    for number, record in records:
        if not isinstance(record, dict):
            raise ValueError(f'{path}, record {number} is no JSON object: {record!r}')
    return [Row(record, f'{path}, record {number}') for number, record in records]
