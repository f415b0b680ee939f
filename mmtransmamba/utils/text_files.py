"""Reading of text files from any source: encodings, line ends, JSON and tables."""

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
from glob import glob
from pathlib import Path
from typing import Any, BinaryIO

_CHUNK = 1 << 22  # bytes that are read at once
# UTF-32's first, because UTF-16's are prefixes of them.
_MARKS = (
    (codecs.BOM_UTF32_LE, 'UTF-32'),
    (codecs.BOM_UTF32_BE, 'UTF-32'),
    (codecs.BOM_UTF8, 'utf-8'),
    (codecs.BOM_UTF16_LE, 'utf-16-le'),
    (codecs.BOM_UTF16_BE, 'utf-16-be'),
)
_SURROGATE = re.compile(r'\\u[dD][89a-fA-F]')  # escaped, as JSON has to
_ACCEPTED = 'accepted is UTF-8, or UTF-16 with a byte order mark'


class TextFileError(ValueError):
    """A file that is not text, or not text of the expected form."""


def text_encoding(head: bytes, name: str | Path) -> tuple[str, int]:
    """The encoding implied by a file's first bytes, and the length of its mark.

    Args:
        head: The first four bytes, or all of a shorter file.
        name: Name of the file in messages.

    Returns:
        ``'utf-8'``, ``'utf-16-le'`` or ``'utf-16-be'``, and the length of the mark.

    Raises:
        TextFileError: The mark belongs to another encoding, or UTF-16's mark is
        missing.
    """
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            if encoding == 'UTF-32':
                raise TextFileError(f'{name} is {encoding} (byte 0); {_ACCEPTED}.')
            return encoding, len(mark)
    if b'\0' in head[:2]:
        raise TextFileError(
            f'{name} is not a text: byte {head.index(0)} is 0, as in a binary file or '
            f'in UTF-16 without its mark; {_ACCEPTED}.'
        )
    return 'utf-8', 0


def decode_text(content: bytes, name: str | Path) -> str:
    """Text from bytes, without a byte order mark, with ``\\n`` as the only line end.

    Args:
        content: UTF-8 with or without a mark, or UTF-16 with one. Lines may end with
            LF, CRLF or CR.
        name: Name of the file in messages.

    Raises:
        TextFileError: The content is not such text; the message names the byte.
    """
    encoding, size = text_encoding(content[:4], name)
    text = decode_part(content[size:], name, encoding, size)
    return text.replace('\r\n', '\n').replace('\r', '\n')


def decode_part(part: bytes, name: str | Path, encoding: str, begin: int) -> str:
    """Text of a part of a file, with its original line ends.

    Args:
        part: Whole characters.
        name: Name of the file in messages.
        encoding: See :func:`text_encoding`.
        begin: Start of the part in the file, in bytes.

    Raises:
        TextFileError: The content is not text; the message names the byte.
    """
    try:
        text = part.decode(encoding)
    except UnicodeDecodeError as error:
        kind = 'UTF-8' if encoding == 'utf-8' else 'UTF-16'
        raise TextFileError(
            f'{name} is not a text in {kind}: byte {begin + error.start} '
            f'(0x{part[error.start]:02x}) does not belong there; {_ACCEPTED}.'
        ) from error
    # A binary file, or UTF-16 without its mark, which may decode as UTF-8.
    place = text.find('\0')
    if place >= 0:
        place = begin + len(text[:place].encode(encoding))
        raise TextFileError(
            f'{name} is not a text: byte {place} is 0, as in a binary file or in '
            f'UTF-16 without its mark; {_ACCEPTED}.'
        )
    return text


def read_text(path: str | Path) -> str:
    """The text of a file, plain or with ``.gz``; see :func:`decode_text`.

    Raises:
        FileNotFoundError: The file does not exist.
        TextFileError: The file is not text.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'There is no file {path}.')
    content = path.read_bytes()
    if path.suffix == '.gz':
        try:
            content = gzip.decompress(content)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise TextFileError(
                f'{path} is not a complete gzip file: {error}'
            ) from error
    return decode_text(content, path)


def parse_json(text: str) -> Any:
    """A JSON document whose objects have each key once.

    Raises:
        ValueError: It is not JSON, a key occurs twice in an object, it is nested
            too deeply, or a text in it has half of a surrogate pair.
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique)
        # Rare, so that most texts are not written again.
        if _SURROGATE.search(text) and not _is_text_throughout(value):
            raise ValueError('a text has half of a surrogate pair (a character cut)')
    except RecursionError:
        raise ValueError('it is nested too deeply') from None
    return value


def _is_text_throughout(value: Any) -> bool:
    return is_text(json.dumps(value, ensure_ascii=False))


def is_text(value: Any) -> bool:
    """Whether this is a string that can be encoded.

    JSON may hold half of a surrogate pair, as of an emoji that was cut in two.
    """
    if not isinstance(value, str):
        return False
    try:
        value.encode('utf-8')
    except UnicodeEncodeError:
        return False
    return True


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f'the key {twice!r:.80} occurs twice in an object')
    return found


def read_json(path: str | Path) -> Any:
    """The single document in a JSON file, plain or with ``.gz``.

    Raises:
        FileNotFoundError: The file does not exist.
        TextFileError: The file is not a JSON document; see :func:`parse_json`.
    """
    text = read_text(path)
    try:
        return parse_json(text)
    except ValueError as error:
        raise TextFileError(f'{path} is not a JSON document: {error}') from error


def read_json_lines(path: str | Path) -> Iterator[tuple[int, Any]]:
    """Number and value of each non-blank line of a JSON Lines file.

    Raises:
        FileNotFoundError: The file does not exist.
        TextFileError: A line is not JSON; see :func:`parse_json`.
    """
    yield from parse_json_lines(read_text(path), path)


def parse_json_lines(text: str, name: str | Path) -> Iterator[tuple[int, Any]]:
    """Number and value of each non-blank line of JSON Lines.

    Args:
        text: The lines.
        name: Where they come from, for the error.

    Raises:
        TextFileError: A line is not JSON; see :func:`parse_json`.
    """
    for number, line in enumerate(text.split('\n'), 1):
        if line.strip():
            try:
                yield number, parse_json(line)
            except ValueError as error:
                raise TextFileError(f'{name}, line {number}: {error}') from error


def read_table(
    path: str | Path, delimiter: str = ','
) -> tuple[list[str], list[dict[str, Any]]]:
    """The columns and rows of a table whose first line names the columns.

    Quoted cells may contain line ends, and be of any length. Blank lines are left out.
    A row may end early; its other cells are None.

    Raises:
        FileNotFoundError: The file does not exist.
        TextFileError: The file is not a table: two columns have one name, a row has
            more cells than there are columns, or a quote is not closed.
    """
    csv.field_size_limit(sys.maxsize)  # a cell may contain a whole image
    text = read_text(path).lstrip('\n')
    # Not splitlines, which treats U+2028 and others in a cell as the end of a line.
    reader = csv.DictReader(io.StringIO(text, newline=''), delimiter=delimiter)
    rows, columns = [], []
    try:
        columns = list(reader.fieldnames or ())
        for row in reader:
            if None in row:
                raise csv.Error(f'{len(columns) + len(row[None])} cells')
            rows.append(row)
    except csv.Error as error:
        raise TextFileError(
            f'{path}, line {reader.line_num}, is not a row of a table of '
            f'{len(columns)} columns: {error}'
        ) from error
    twice = [name for name in dict.fromkeys(columns) if columns.count(name) > 1]
    if twice:
        raise TextFileError(f'{path} has several columns {twice[0]!r}')
    last = [cell for cell in rows[-1].values() if cell] if rows else []
    # An open quote takes all lines up to the end of the file into its cell.
    if last and '\n' in last[-1] and not text.rstrip().endswith('"'):
        raise TextFileError(f'{path}: the quote before {last[-1][:40]!r} is not closed')
    return columns, rows


def scan_lines(path: str | Path) -> Iterator[tuple[int, bytes, str]]:
    """The start of each line of a file, its bytes, and their encoding.

    Only a few lines are in memory at a time. The bytes include the line's end, but not
    the file's byte order mark.

    Raises:
        FileNotFoundError: The file does not exist.
        TextFileError: The file's mark belongs to an encoding other than UTF-8 and
            UTF-16.
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
        # A CR at the end of the chunk may belong to a CRLF, or to the middle of a
        # UTF-16 character.
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


def find_files(pattern: str) -> list[str]:
    """The files of a pattern, or the one file that has it as its name."""
    return [pattern] if Path(pattern).is_file() else glob(pattern, recursive=True)


def stream_lines(path: str | Path) -> Iterator[str]:
    """The lines of a large file, ending in ``\\n``, with only a few in memory.

    Raises:
        FileNotFoundError: The file does not exist.
        TextFileError: The file is not text; this is raised where the fault starts.
    """
    for begin, data, encoding in scan_lines(path):
        line = decode_part(data, path, encoding, begin)
        yield re.sub(r'\r\n?$', '\n', line)
