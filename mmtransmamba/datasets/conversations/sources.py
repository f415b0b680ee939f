"""The files of a set of conversations, and the amount taken from each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmtransmamba.datasets.conversations.conversation import (
    BadSampleError,
    Conversation,
)
from mmtransmamba.datasets.conversations.formats import FORMATS, Format
from mmtransmamba.utils.text_files import find_files


@dataclass
class Source:
    """One file of conversations.

    Args:
        file: JSON, JSON Lines or Parquet.
        image_root: Folder of its images.
        parse: Function from a row to a conversation.
        name: Name in messages.
        amount: Settings of the amount to take.
        entry: Number of the entry that it belongs to.
        siblings: Files of that entry.
    """

    file: Path
    image_root: str
    parse: Format
    name: str
    amount: dict[str, float]
    entry: int = 0
    siblings: int = 1

    def conversation(self, row: Mapping[str, Any], number: int) -> Conversation:
        """The conversation of a row, named by its number if it has no name.

        Raises:
            BadSampleError: The row is not a conversation.
        """
        conversation = self.parse(row)
        conversation.image_root = self.image_root
        conversation.id = conversation.id or f'row {number} of {self.file.name}'
        return conversation

    def measure(self, row: dict) -> tuple[int, bool]:
        """Number of words, and whether there is an image."""
        try:
            conversation = self.parse(row)
        except BadSampleError:
            return 0, False
        words = sum(len(turn.text.split()) for turn in conversation.turns)
        return words, bool(conversation.images)


def find_sources(
    files: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]],
    image_root: str | None,
    format: str | Format,
    amounts: Sequence[str],
) -> list[Source]:
    """Expand the files of a set.

    Args:
        files: Paths or patterns, folders with Parquet files at any depth, or dicts
            with ``file`` and settings of their own: ``image_root``, ``format``,
            ``name``, and one of ``amounts``.
        image_root: Folder of the images; by default that of the file.
        format: A name from :data:`~.formats.FORMATS`, or a function.
        amounts: Names of the settings that specify the amount taken from an entry.

    Raises:
        FileNotFoundError: No file matches a pattern, or the image folder is missing.
        ValueError: A setting is unknown.
    """
    entries = [files] if isinstance(files, str | Path | Mapping) else list(files)
    sources = []
    for number, entry in enumerate(entries):
        given = dict(entry) if isinstance(entry, Mapping) else dict(file=str(entry))
        known = {'file', 'image_root', 'format', 'name', *amounts}
        if 'file' not in given or not set(given) <= known:
            raise ValueError(
                f'An entry of files must have "file" and may have '
                f'{sorted(known - {"file"})}, got {sorted(given)}.'
            )
        amount = {key: given[key] for key in amounts if key in given}
        if len(amount) > 1 or any(not value > 0 for value in amount.values()):
            raise ValueError(
                f'{given["file"]}: give one of {list(amounts)}, larger than 0, got '
                f'{amount}.'
            )
        paths = sorted(find_files(str(given['file'])))
        folder = Path(given['file'])
        if folder.is_dir():
            paths = sorted(str(path) for path in folder.rglob('*.parquet'))
        if not paths and folder.is_dir():
            raise FileNotFoundError(
                f'The folder "{folder}" has no *.parquet; name its JSON files.'
            )
        if not paths:
            raise FileNotFoundError(
                f'There is no file of conversations "{given["file"]}".'
            )
        parse = _format(given.get('format', format))
        for path in paths:
            root = given.get('image_root', image_root)
            root = str(Path(path).parent) if root is None else str(root)
            if not Path(root).is_dir():
                raise FileNotFoundError(
                    f'{path}: there is no folder "{root}" (image_root).'
                )
            own = Path(path).relative_to(folder) if folder.is_dir() else Path(path).name
            name = given.get('name', str(own))
            place = (number, len(paths))
            sources.append(Source(Path(path), root, parse, name, amount, *place))
    if not sources:
        raise ValueError('files is empty.')
    return sources


def _format(format: str | Format) -> Format:
    if callable(format):
        return format
    if format not in FORMATS:
        raise ValueError(f'format must be one of {sorted(FORMATS)}, got {format!r}.')
    return FORMATS[format]
