"""Reading text files, whatever wrote them: encodings, line ends, JSON and tables."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

_CHUNK = 1 << 22  # bytes that are read at once
# UTF-32's first, as UTF-16's are the beginning of one.
_MARKS = (
    (codecs.BOM_UTF32_LE, 'UTF-32'),
    (codecs.BOM_UTF32_BE, 'UTF-32'),
    (codecs.BOM_UTF8, 'utf-8'),
    (codecs.BOM_UTF16_LE, 'utf-16-le'),
    (codecs.BOM_UTF16_BE, 'utf-16-be'),
)
_ACCEPTED = 'accepted is UTF-8, or UTF-16 with a byte order mark'


class TextFileError(ValueError):
    """A file that is no text, or no text of the form it should have."""


def text_encoding(head: bytes, name: str | Path) -> tuple[str, int]:
    """The encoding that a file's first bytes tell, and how many bytes tell it.

    Args:
        head: The first four bytes, or all of a shorter file.
        name: What messages call the file.

    Returns:
        ``'utf-8'``, ``'utf-16-le'`` or ``'utf-16-be'``, and the length of the mark.

    Raises:
        TextFileError: The mark is that of another encoding, or UTF-16's is missing.
    """
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            if encoding == 'UTF-32':
                raise TextFileError(f'{name} is {encoding} (byte 0); {_ACCEPTED}.')
            return encoding, len(mark)
    if b'\0' in head[:2]:
        raise TextFileError(
            f'{name} is no text: byte {head.index(0)} is 0, as in a binary file or in '
            f'UTF-16 without its mark; {_ACCEPTED}.'
        )
    return 'utf-8', 0


def decode_text(content: bytes, name: str | Path) -> str:
    """Text from bytes, without byte order mark, its lines ended by ``\\n`` alone.

    Args:
        content: UTF-8 with or without a mark, or UTF-16 with one. Lines may end with
            LF, CRLF or CR.
        name: What messages call the file.

    Raises:
        TextFileError: It is no such text; the message names the byte.
    """
    encoding, size = text_encoding(content[:4], name)
    text = decode_part(content[size:], name, encoding, size)
    return text.replace('\r\n', '\n').replace('\r', '\n')


def decode_part(part: bytes, name: str | Path, encoding: str, begin: int) -> str:
    """Text of a part of a file, its line ends as they are.

    Args:
        part: Whole characters.
        name: What messages call the file.
        encoding: See :func:`text_encoding`.
        begin: Where the part begins in the file, in bytes.

    Raises:
        TextFileError: It is no text; the message names the byte.
    """
    try:
        text = part.decode(encoding)
    except UnicodeDecodeError as error:
        kind = 'UTF-8' if encoding == 'utf-8' else 'UTF-16'
        raise TextFileError(
            f'{name} is no text in {kind}: byte {begin + error.start} '
            f'(0x{part[error.start]:02x}) does not belong there; {_ACCEPTED}.'
        ) from error
    # A binary file, or UTF-16 without its mark, which may well decode as UTF-8.
    place = text.find('\0')
    if place >= 0:
        place = begin + len(text[:place].encode(encoding))
        raise TextFileError(
            f'{name} is no text: byte {place} is 0, as in a binary file or in UTF-16 '
            f'without its mark; {_ACCEPTED}.'
        )
    return text


def read_text(path: str | Path) -> str:
    """The text of a file, plain or with ``.gz``; see :func:`decode_text`.

    Raises:
        FileNotFoundError: There is no such file.
        TextFileError: It is no text.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'There is no file {path}.')
    content = path.read_bytes()
    if path.suffix == '.gz':
        try:
            content = gzip.decompress(content)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise TextFileError(f'{path} is no whole gzip file: {error}') from error
    return decode_text(content, path)


def read_json(path: str | Path) -> Any:
    """The one document in a JSON file, plain or with ``.gz``.

    Raises:
        FileNotFoundError: There is no such file.
        TextFileError: It is no JSON document.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except ValueError as error:
        raise TextFileError(f'{path} is no JSON document: {error}') from error


def read_json_lines(path: str | Path) -> Iterator[tuple[int, Any]]:
    """Number and value of each line of JSON Lines that is not blank.

    Raises:
        FileNotFoundError: There is no such file.
        TextFileError: A line is no JSON.
    """
    for number, line in enumerate(read_text(path).split('\n'), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except ValueError as error:
                raise TextFileError(f'{path}, line {number}: {error}') from error


def read_table(
    path: str | Path, delimiter: str = ','
) -> tuple[list[str], list[dict[str, Any]]]:
    """The columns and rows of a table whose first line names the columns.

    Cells in quotes may hold line ends, and be of any length. Blank lines are left out.

    Raises:
        FileNotFoundError: There is no such file.
        TextFileError: It is no table.
    """
    csv.field_size_limit(sys.maxsize)  # a cell may hold a whole image
    # Not splitlines, which takes U+2028 and others in a cell for the end of a line.
    lines = io.StringIO(read_text(path).lstrip('\n'), newline='')
    reader = csv.DictReader(lines, delimiter=delimiter)
    try:
        return list(reader.fieldnames or ()), list(reader)
    except csv.Error as error:
        raise TextFileError(
            f'{path}, line {reader.line_num}, is no row of a table: {error}'
        ) from error


def scan_lines(path: str | Path) -> Iterator[tuple[int, bytes, str]]:
    """Where each line of a file begins, its bytes, and their encoding.

    A few lines are in memory at a time. The bytes include the line's end, but not the
    file's byte order mark.

    Raises:
        FileNotFoundError: There is no such file.
        TextFileError: The file's mark is of another encoding than UTF-8 and UTF-16.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'There is no file {path}.')
    with path.open('rb') as file:
        encoding, begin = text_encoding(file.read(4), path)
        file.seek(begin)
        for line in _split_lines(file, encoding):
            yield begin, line, encoding
            begin += len(line)


def _split_lines(file: BinaryIO, encoding: str) -> Iterator[bytes]:
    cr, lf = ('\r'.encode(encoding), '\n'.encode(encoding))
    ends = re.compile(b'%b(?:%b)?|%b' % tuple(map(re.escape, (cr, lf, lf))))
    unit = len(cr)
    rest, searched = b'', 0
    while True:
        chunk = file.read(_CHUNK)
        # A CR at the end of what was read may belong to a CRLF, or to the middle of a
        # character of UTF-16.
        keep = 2 * unit if chunk else 0
        data, start = rest + chunk, 0
        for found in ends.finditer(data, searched):
            if found.start() % unit:
                continue
            if found.end() > len(data) - keep:
                break
            yield data[start : found.end()]
            start = found.end()
        rest = data[start:]
        if not chunk:
            if rest:
                yield rest
            return
        searched = max(0, len(rest) - 2 * keep) // unit * unit


def stream_lines(path: str | Path) -> Iterator[str]:
    """The lines of a large file, ``\\n`` at their ends, a few of them in memory.

    Raises:
        FileNotFoundError: There is no such file.
        TextFileError: It is no text, which shows only where that begins.
    """
    for begin, data, encoding in scan_lines(path):
        line = decode_part(data, path, encoding, begin)
        yield re.sub(r'\r\n?$', '\n', line)
