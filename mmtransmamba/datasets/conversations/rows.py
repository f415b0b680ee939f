"""Rows of JSON, JSON Lines and Parquet files, read one after the other."""

from __future__ import annotations

import codecs
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import barrier, is_main_process
from mmengine.logging import print_log

from mmtransmamba.datasets.conversations.conversation import BadSampleError
from mmtransmamba.datasets.conversations.parquet_rows import (
    ParquetReader,
    is_parquet,
    open_parquet,
    scan_parquet,
)
from mmtransmamba.utils.text_files import (
    TextFileError,
    decode_part,
    parse_json,
    scan_lines,
    text_encoding,
)

Measure = Callable[[dict], tuple[int, bool]]
_CHUNK = 1 << 22  # bytes that are read at once
_SPACE = re.compile(r'[ \t\r\n]*')
_VERSION = 2  # format version of the index


def scan_rows(
    path: str | Path, first: int = 0, step: int = 1
) -> Iterator[tuple[int, int, Any]]:
    """Iterate over a file's rows, holding only a few in memory.

    Args:
        path: A JSON file with one list, or a file with one JSON value per line, in
            UTF-8, or in UTF-16 with a byte order mark. The first character decides.
            Or a Parquet file (``.parquet``).
        first: Number of the first row to yield.
        step: Distance between yielded rows. Other lines are not parsed.

    Yields:
        The start and end of a row in bytes (Parquet: its number and the next one), and
        its value; ``None`` for a line that is not JSON.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file has neither format, the list is incomplete, or the content
            is not text.
    """
    path = Path(path)
    if is_parquet(path):
        return scan_parquet(path, first, step)
    encoding = encoding_of(path)
    with path.open('rb') as file:
        head = file.read(128).decode(encoding, 'replace').lstrip('\ufeff \t\r\n')[:1]
    if head == '[':
        return islice(_scan_list(path, encoding), first, None, step)
    if head in ('{', ''):
        return _scan_lines(path, first, step)
    raise ValueError(
        f'{path} starts with {head!r}; expected is a JSON list, or JSON Lines with an '
        'object in each line. Compressed files have to be unpacked.'
    )


def encoding_of(path: Path) -> str:
    """The encoding of a file of rows.

    Raises:
        FileNotFoundError: The file does not exist.
        TextFileError: :func:`scan_rows` does not support the encoding.
    """
    if not path.is_file():
        raise FileNotFoundError(f'There is no file of conversations "{path}".')
    with path.open('rb') as file:
        return text_encoding(file.read(4), path)[0]


def _scan_lines(path: Path, first: int, step: int) -> Iterator[tuple[int, int, Any]]:
    number = 0
    for begin, line, encoding in scan_lines(path):
        if line.strip(b' \t\r\n\0'):
            if number >= first and (number - first) % step == 0:
                yield begin, begin + len(line), _parse(line, encoding)
            number += 1


def _scan_list(path: Path, encoding: str) -> Iterator[tuple[int, int, Any]]:
    scan = json.JSONDecoder().raw_decode
    decode = codecs.getincrementaldecoder(encoding)().decode
    unit = len(' '.encode(encoding))
    with path.open('rb') as file:
        byte = text_encoding(file.read(4), path)[1]
        file.seek(byte)
        text, at = '', 0  # the character at ``at`` is at ``byte`` in the file
        expected, ended = '[', False
        while True:
            begin = _SPACE.match(text, at).end()
            byte, at = byte + (begin - at) * unit, begin
            after_value = expected == ','
            if at < len(text) and ended:
                raise ValueError(
                    f'{path} goes on after its list, with {text[at]!r} at byte {byte}.'
                )
            if at < len(text) and text[at] == ']' and expected != '[':
                byte, at, ended = byte + unit, at + 1, True
                continue
            if at < len(text) and expected:
                if text[at] != expected:
                    raise ValueError(
                        f'{path} has {text[at]!r} at byte {byte}, '
                        f'expected is {expected!r}{" or a ]" * after_value}.'
                    )
                byte, at, expected = byte + unit, at + 1, ''
                continue
            try:
                value, end = scan(text, at) if at < len(text) else (None, len(text))
                # A number at the end of the chunk may continue in the next one.
                whole = end < len(text)
            except json.JSONDecodeError:
                whole = False
            except RecursionError:
                raise ValueError(
                    f'{path}: the value at byte {byte} is nested too deeply'
                ) from None
            if whole:
                size = len(text[at:end].encode(encoding))
                yield byte, byte + size, value
                byte, at, expected = byte + size, end, ','
                continue
            chunk = file.read(max(_CHUNK, len(text) - at))
            try:
                text, at = text[at:] + decode(chunk, not chunk), 0
            except UnicodeDecodeError as error:
                begin = file.tell() - len(error.object)
                decode_part(error.object, path, encoding, begin)  # names the byte
                raise
            if ended and not chunk:
                return
            if not chunk:
                raise ValueError(
                    f'{path} is not a list of JSON values from byte {byte} on: '
                    f'{text[:80]!r}.'
                )


def _parse(data: bytes, encoding: str) -> Any:
    try:
        return parse_json(data.decode(encoding))
    except ValueError:
        return None


class IndexedRows:
    """Random access to a file's rows through an index on disk.

    The file is scanned once. Neither rows nor index need to fit into memory: both are
    memory-mapped and shared by the processes that read them.

    Args:
        path: See :func:`scan_rows`.
        measure: Returns the number of words of a row and whether it has an image.
        key: Must change whenever ``measure`` does.
        cache_dir: Folder for the index, by default ``.index`` beside the file.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file cannot be read as rows, or has no rows.
        OSError: The index cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        measure: Measure,
        key: str,
        cache_dir: str | Path | None = None,
    ) -> None:
        self.path = Path(path)
        self._parquet = ParquetReader(self.path) if is_parquet(self.path) else None
        if self._parquet is None:
            self.encoding = encoding_of(self.path)
        else:
            open_parquet(self.path)  # refuses what cannot be read
        folder = Path(cache_dir) if cache_dir else self.path.parent / '.index'
        self.index = folder / f'{self.path.stem}-{self._fingerprint(key)}.rows'
        if is_main_process() and not self.index.is_file():
            self._write(measure)
        barrier()
        if not self.index.is_file():  # another machine, with disks of its own
            self._write(measure)
        self._count = self.index.stat().st_size // 32
        self._maps: tuple[np.ndarray, np.ndarray] | None = None
        if self._count == 0:
            raise ValueError(f'{self.path} has no rows.')

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> dict:
        """Raises: BadSampleError: The row is not a JSON object."""
        if self._parquet is not None:
            return self._parquet[number]
        index, data = self._mapped()
        begin, end = index[number, :2]
        row = _parse(bytes(data[begin:end]), self.encoding)
        if not isinstance(row, dict):
            why = f'row {number} of {self.path} is not a JSON object'
            try:
                decode_part(bytes(data[begin:end]), self.path, self.encoding, begin)
            except TextFileError as error:
                why += f': {error}'
            raise BadSampleError('unreadable row', why)
        return row

    @property
    def words(self) -> np.ndarray:
        """Number of words of each row, int64 ``[N]``."""
        return self._mapped()[0][:, 2]

    @property
    def has_image(self) -> np.ndarray:
        """Whether each row has an image, bool ``[N]``."""
        return self._mapped()[0][:, 3] > 0

    def shows_image(self, number: int) -> bool:
        """Whether a row has an image."""
        return bool(self._mapped()[0][number, 3])

    def __getstate__(self) -> dict[str, Any]:
        return dict(self.__dict__, _maps=None)

    def _mapped(self) -> tuple[np.ndarray, np.ndarray]:
        if self._maps is None:
            index = np.memmap(self.index, np.int64, mode='r').reshape(-1, 4)
            self._maps = index, np.memmap(self.path, np.uint8, mode='r')
        return self._maps

    def _fingerprint(self, key: str) -> str:
        stat = self.path.stat()
        of = [_VERSION, key, str(self.path.resolve()), stat.st_size, stat.st_mtime_ns]
        return hashlib.sha256(json.dumps(of).encode()).hexdigest()[:16]

    def _write(self, measure: Measure) -> None:
        print_log(f'Indexing {self.path}.', logger='current')
        try:
            self.index.parent.mkdir(parents=True, exist_ok=True)
            # Write completely or not at all; one of several processes does it.
            handle, part = tempfile.mkstemp(dir=self.index.parent, suffix='.part')
        except OSError as error:
            raise OSError(
                f'The index of {self.path} cannot be written to '
                f'"{self.index.parent}" ({error}); choose another folder: cache_dir.'
            ) from error
        try:
            with os.fdopen(handle, 'wb') as out:
                rows = scan_rows(self.path)
                if self._parquet is not None:
                    rows = scan_parquet(self.path, contents=False)
                for begin, end, row in rows:
                    words, image = measure(row) if isinstance(row, dict) else (0, False)
                    np.asarray([begin, end, words, image], np.int64).tofile(out)
            os.replace(part, self.index)
        finally:
            Path(part).unlink(missing_ok=True)
