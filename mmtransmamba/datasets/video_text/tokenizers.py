"""Captions as token ids."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from mmtransmamba.registry import TASK_UTILS

Tokens = dict[str, Tensor]

_FILES = (('tokenizer.json',), ('vocab.json', 'merges.txt'))


def pad_tokens(rows: Sequence[Sequence[int]]) -> Tokens:
    """Stack token ids, the shorter rows padded with 0 at the end.

    Returns:
        ``input_ids`` and ``attention_mask``, int64 ``[n, L]``; padding has mask 0.
    """
    length = max(map(len, rows))
    ids = torch.zeros(len(rows), length, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    return dict(input_ids=ids, attention_mask=mask)


@TASK_UTILS.register_module()
class CLIPTextTokenizer:
    """CLIP's tokenizer, from transformers.

    Args:
        name: A folder with the tokenizer's files, ``tokenizer.json`` or ``vocab.json``
            and ``merges.txt``. Nothing is downloaded.
        max_length: Maximum number of tokens per caption, including the two special
            ones; longer captions are truncated.

    Raises:
        FileNotFoundError: The folder has no such files.
        ValueError: They cannot be read, or ``max_length`` leaves no room for words.
    """

    def __init__(self, name: str | os.PathLike, max_length: int = 32) -> None:
        from transformers import CLIPTokenizer

        if max_length < 3:
            raise ValueError(
                f'CLIPTextTokenizer: max_length={max_length} must be 3 at least: two '
                'tokens are special.'
            )
        # Without these files, transformers creates a tokenizer without any word.
        if not any(
            all((Path(name) / file).is_file() for file in files) for files in _FILES
        ):
            raise FileNotFoundError(
                f'CLIPTextTokenizer: name={str(name)!r} is not a folder with a '
                f'tokenizer of CLIP ({" or ".join(map(" and ".join, _FILES))}).'
            )
        self.max_length = max_length
        try:
            self._tokenizer = CLIPTokenizer.from_pretrained(name, local_files_only=True)
        except Exception as error:  # the tokenizers package has no class of its own
            raise ValueError(
                f'CLIPTextTokenizer: the files in {str(name)!r} are not a tokenizer of '
                f'CLIP: {error}'
            ) from error

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """``input_ids`` and ``attention_mask`` of captions, int64 ``[n, L]``."""
        encoded = self._tokenizer(
            list(texts), truncation=True, max_length=self.max_length
        )
        return pad_tokens(encoded['input_ids'])


@TASK_UTILS.register_module()
class WordTokenizer:
    """One token per word of a small, known vocabulary.

    Ids are ordered as CLIP's: words from 1, then the token that starts a caption, and
    last, as the largest, the one that ends it. 0 is padding.

    Args:
        words: The vocabulary.

    Attributes:
        bos: Id of the token that starts a caption.
        eos: Id of the token that ends it.
        vocab_size: Number of ids.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.ids = {word: i for i, word in enumerate(words, 1)}
        self.bos = len(self.ids) + 1
        self.eos = self.bos + 1
        self.vocab_size = self.eos + 1

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """``input_ids`` and ``attention_mask`` of captions, int64 ``[n, L]``.

        Raises:
            ValueError: A caption has a word that is not in the vocabulary.
        """
        rows = []
        for text in texts:
            words = re.findall(r'\w+', text.lower())
            unknown = [word for word in words if word not in self.ids]
            if unknown:
                raise ValueError(
                    f'{type(self).__name__}: the vocabulary lacks {unknown}; it has '
                    f'{", ".join(sorted(self.ids))}.'
                )
            rows.append([self.bos, *(self.ids[word] for word in words), self.eos])
        return pad_tokens(rows)
