"""Rows of Parquet files, in which Hugging Face's hub stores data sets with images.

An image column holds ``{"bytes", "path"}``. One row group is in memory at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

_BATCH = 64  # rows that are turned into Python objects at once


def is_parquet(path: str | Path) -> bool:
    """Whether a file is Parquet, by its name."""
    return Path(path).suffix == '.parquet'


def open_parquet(path: str | Path) -> Any:
    """A ``pyarrow.parquet.ParquetFile``.

    Raises:
        FileNotFoundError: The file does not exist.
        ImportError: pyarrow is not installed.
        ValueError: The file is not Parquet.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'There is no file of conversations "{path}".')
    if find_spec('pyarrow') is None:
        raise ImportError(
            f'Reading {path} needs pyarrow: pip install "mmtransmamba[parquet]"'
        )
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        return ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).partition('\n')[0]
        raise ValueError(f'{path} cannot be read as Parquet: {reason}') from error


def scan_parquet(
    path: str | Path, first: int = 0, step: int = 1, contents: bool = True
) -> Iterator[tuple[int, int, dict]]:
    """Iterate over a file's rows, one row group after the other.

    Args:
        path: The file.
        first: Number of the first row to yield.
        step: Distance between yielded rows. Row groups without any are not read.
        contents: Whether the contents of images are read, or replaced by nothing.

    Yields:
        The number of the row, the next one, and the row.
    """
    file = open_parquet(path)
    columns = None if contents else _without_contents(file)
    begin = 0
    for group in range(file.num_row_groups):
        end = begin + file.metadata.row_group(group).num_rows
        # The first wanted row that is not before the group.
        ahead = max(begin - first, 0)
        if first + -(-ahead // step) * step < end:
            yield from _of_group(file, group, begin, first, step, columns)
        begin = end


def _of_group(
    file: Any, group: int, begin: int, first: int, step: int, columns: list[str] | None
) -> Iterator[tuple[int, int, dict]]:
    batches = file.iter_batches(_BATCH, row_groups=[group], columns=columns)
    for batch in batches:
        for i in range(batch.num_rows):
            number = begin + i
            if number >= first and (number - first) % step == 0:
                yield number, number + 1, _row(batch, i, columns is not None)
        begin += batch.num_rows


def _without_contents(file: Any) -> list[str]:
    """Columns besides the contents of images, as paths of nested fields.

    Contents without anything beside them are kept: nothing else says that there is an
    image.
    """
    schema = file.metadata.schema
    paths = [schema.column(i).path for i in range(file.metadata.num_columns)]
    objects = Counter(path.rpartition('.')[0] for path in paths)
    return [
        path
        for path in paths
        if not path.endswith('.bytes') or objects[path.rpartition('.')[0]] == 1
    ]


def _row(batch: Any, i: int, blank: bool = False) -> dict:
    row = batch.slice(i, 1).to_pylist()[0]
    row = {name: _listed(value) for name, value in row.items()}
    if blank:
        row = {name: _with_contents(value) for name, value in row.items()}
    return row


def _listed(value: Any) -> Any:
    """Older files have one list per field in place of a list of objects."""
    if not isinstance(value, Mapping) or not value:
        return value
    if not all(isinstance(part, list) for part in value.values()):
        return value
    if len({len(part) for part in value.values()}) != 1:
        return value
    rows = zip(*value.values(), strict=True)
    return [dict(zip(value, parts, strict=True)) for parts in rows]


def _with_contents(value: Any) -> Any:
    """An image, or a list of them, with empty contents in place of those not read."""
    if isinstance(value, list):
        return [_with_contents(part) for part in value]
    if isinstance(value, Mapping) and set(value) == {'path'}:
        return dict(value, bytes=b'')
    return value


class ParquetReader:
    """Access to the rows of a file by number; the last row group stays in memory.

    Args:
        path: The file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path
        self._file: Any = None
        self._group: tuple[int, Any] | None = None

    def __getitem__(self, number: int) -> dict:
        if self._file is None:
            self._file = open_parquet(self.path)
            metadata = self._file.metadata
            counts = [
                metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)
            ]
            self._begins = np.cumsum([0, *counts])
        group = int(np.searchsorted(self._begins, number, side='right')) - 1
        if self._group is None or self._group[0] != group:
            self._group = None  # before the next one is read
            self._group = group, self._file.read_row_group(group)
        return _row(self._group[1], number - int(self._begins[group]))

    def __getstate__(self) -> dict[str, Any]:
        return dict(self.__dict__, _file=None, _group=None)
