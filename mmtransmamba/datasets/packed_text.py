"""Text files as blocks of tokens, read from disk."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import barrier, is_main_process
from mmengine.logging import print_log
from torch import Tensor
from torch.utils.data import Dataset

from mmtransmamba.datasets.token_collate import token_sample
from mmtransmamba.registry import DATASETS
from mmtransmamba.utils.processors import load_tokenizer
from mmtransmamba.utils.text_files import find_files, parse_json, stream_lines

_PIECE = 1 << 16  # characters tokenised at once
_TOKENIZER_FILES = (
    *('tokenizer*', 'vocab*', 'merges*', 'special_tokens_map.json'),
    # The last may name the class of the tokenizer.
    *('added_tokens.json', '*.model', 'config.json'),
)

_LINES = ('.jsonl', '.ndjson')
_OTHERS = ('.json', '.parquet', '.csv', '.tsv', '.gz', '.npz')
"""Endings of files that are no text to train on."""
_KEYS = dict(text_key='text', prompt_key=None)


def _has_lines(file: Path) -> bool:
    """Whether a file is JSON Lines."""
    return file.suffix.lower() in _LINES


@DATASETS.register_module()
class PackedText(Dataset):
    """Documents joined and cut into blocks of one length.

    The files are tokenised once, piece by piece, into a memory-mapped file of token
    ids, so neither text nor tokens need to fit into memory. The file is reused as long
    as texts, tokenizer and settings are the same.

    A ``.jsonl`` file has one document per line; any other file is a single document.
    Both are UTF-8, or UTF-16 with a byte order mark. A document starts with the
    tokenizer's BOS and ends with its EOS, if they exist. Blocks cross document
    boundaries, and the remainder after the last block is dropped.

    Args:
        files: Files, or patterns such as ``'data/text/*.jsonl'``.
        tokenizer: Folder of a transformers tokenizer.
        block_size: Tokens of a block, two at least.
        text_key: Key of the text in a line of a ``.jsonl`` file.
        prompt_key: Key of the prompt, which precedes the text and is not learned; lines
            without this key have no prompt.
        learn_prompts: Learn the prompts as well, not only the texts.
        cache_dir: Folder for the token ids; by default ``.packed`` beside the first
            file.

    Raises:
        FileNotFoundError: No such file, or no tokenizer.
        ValueError: ``block_size`` is too small, a line cannot be read, the tokenizer
            has neither BOS nor EOS, or the texts do not fill a block.
    """

    metainfo: dict = {}

    def __init__(
        self,
        files: str | Sequence[str],
        tokenizer: str,
        block_size: int = 2048,
        text_key: str = 'text',
        prompt_key: str | None = None,
        learn_prompts: bool = False,
        cache_dir: str | None = None,
    ) -> None:
        if block_size < 2:
            raise ValueError(
                f'PackedText: block_size={block_size} must be 2 at least: of a single '
                'token nothing is predicted.'
            )
        patterns = [files] if isinstance(files, str) else list(files)
        self.files = sorted(
            {Path(f) for pattern in patterns for f in find_files(pattern)}
        )
        if not self.files:
            raise FileNotFoundError(f'PackedText: no file fits {patterns}.')
        for file in self.files:
            if file.suffix.lower() in _OTHERS:
                raise ValueError(
                    f'PackedText: {file} is neither a text nor JSON Lines; accepted '
                    f'are texts, and one JSON object per line in {" or ".join(_LINES)}.'
                )
        keys = dict(text_key=text_key, prompt_key=prompt_key)
        if not any(map(_has_lines, self.files)) and keys != _KEYS:
            name = next(name for name in keys if keys[name] != _KEYS[name])
            raise ValueError(
                f'PackedText: {name}={keys[name]!r} goes with JSON Lines; '
                f'{self.files[0]} is a text.'
            )
        if not Path(tokenizer).is_dir():
            raise FileNotFoundError(
                f'PackedText: no folder "{tokenizer}" with a tokenizer.'
            )
        self.tokenizer = tokenizer
        self.block_size = block_size
        self.text_key = text_key
        self.prompt_key = prompt_key
        self.learn_prompts = learn_prompts
        folder = Path(cache_dir) if cache_dir else self.files[0].parent / '.packed'
        self.path = folder / f'{self._fingerprint()}.bin'
        if is_main_process() and not self.path.is_file():
            self._write()
        barrier()
        if not self.path.is_file():  # another machine, with disks of its own
            self._write()
        self._blocks: np.ndarray | None = None
        self._count = self.path.stat().st_size // (4 * block_size)
        if self._count == 0:
            raise ValueError(
                f'PackedText: {len(self.files)} files have '
                f'{self.path.stat().st_size // 4} tokens, less than one block of '
                f'block_size={block_size}.'
            )

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < self._count:
            raise IndexError(f'block {index} of {self._count}')
        if self._blocks is None:
            self._blocks = np.memmap(self.path, np.uint32, mode='r')
        start = index * self.block_size
        stored = self._blocks[start : start + self.block_size].astype(np.int64)
        learned = None if self.learn_prompts else torch.from_numpy(stored & 1).bool()
        return token_sample(torch.from_numpy(stored >> 1), learned)

    def __getstate__(self) -> dict[str, Any]:
        # A worker process maps the file itself instead of receiving its content.
        return dict(self.__dict__, _blocks=None)

    def _fingerprint(self) -> str:
        """Changes with everything that the token ids depend on."""
        settings = [self.text_key, self.prompt_key]
        texts = [
            (str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns)
            for f in self.files
        ]
        digest = hashlib.sha256(json.dumps([settings, texts]).encode())
        found = (Path(self.tokenizer).glob(pattern) for pattern in _TOKENIZER_FILES)
        for file in sorted({file for files in found for file in files}):
            digest.update(file.name.encode() + file.read_bytes())
        return digest.hexdigest()[:16]

    def _write(self) -> None:
        """Tokenise everything into one file: ids times two, plus one if learned."""
        tokenizer = load_tokenizer(self.tokenizer)
        begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
        if begin is None and end is None:
            raise ValueError(
                f'PackedText: the tokenizer in "{self.tokenizer}" has neither a BOS '
                'nor an EOS token, so documents could not be told apart.'
            )
        if begin == end:  # one token between documents
            begin = None
        print_log(f'PackedText: tokenising {len(self.files)} files.', logger='current')
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Write completely or not at all; one of several processes does it.
        handle, part = tempfile.mkstemp(dir=self.path.parent, suffix='.part')
        try:
            with os.fdopen(handle, 'wb') as out:
                for document in self._documents():
                    _store(out, [begin], learned=False)
                    for text, learned in document:
                        ids = tokenizer(text, add_special_tokens=False)['input_ids']
                        _store(out, ids, learned)
                    _store(out, [end], learned=True)
            os.replace(part, self.path)
        finally:
            Path(part).unlink(missing_ok=True)

    def _documents(self) -> Iterator[Iterator[tuple[str, bool]]]:
        """For each document, its pieces of text and whether they are learned."""
        for file in self.files:
            lines = stream_lines(file)
            if not _has_lines(file):
                yield _pieces(lines)
                continue
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield self._parse(line, f'{file}, line {number}')

    def _parse(self, line: str, where: str) -> Iterator[tuple[str, bool]]:
        try:
            row = parse_json(line)
            text = row[self.text_key]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f'PackedText: {where} is not a JSON object with text under '
                f'"{self.text_key}": {error!r}.'
            ) from error
        prompt = row.get(self.prompt_key) if self.prompt_key else None
        for key, value in ((self.text_key, text), (self.prompt_key, prompt or '')):
            if not isinstance(value, str):
                raise ValueError(
                    f'PackedText: {where} has {value!r:.80} under "{key}", not text.'
                )
        parts = [(text, True)]
        if prompt:
            parts.insert(0, (prompt, False))
        return iter(parts)


def _pieces(lines: Iterator[str]) -> Iterator[tuple[str, bool]]:
    """Whole lines, gathered into pieces of text."""
    piece = ''
    for line in lines:
        piece += line
        if len(piece) >= _PIECE:
            yield piece, True
            piece = ''
    if piece:
        yield piece, True


def _store(out: Any, ids: list[int | None], learned: bool) -> None:
    known = [token for token in ids if token is not None]
    np.asarray([token << 1 | learned for token in known], np.uint32).tofile(out)
