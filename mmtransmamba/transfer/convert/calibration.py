"""Text for measuring and calibrating conversions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor

from mmtransmamba.utils.array_files import open_arrays
from mmtransmamba.utils.processors import load_tokenizer
from mmtransmamba.utils.text_files import read_text

BLOCK, BATCH = 512, 8
TOKENS = 2048
"""Tokens of the batches that are fitted to."""


def split_held_out(batches: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Split text into rows to fit to, and the last eighth, at least one, to measure on.

    Args:
        batches: Token ids ``[B, L]``. A single row is split into two halves.

    Raises:
        ValueError: There is no row, or a single one with less than four tokens.
    """
    rows = [row[None] for batch in batches for row in batch]
    if len(rows) == 1:
        rows = list(rows[0].tensor_split(2, dim=1))
    if not rows or min(row.shape[1] for row in rows) < 2:
        raise ValueError(
            'The calibration text is too short to hold a part of it out: give two rows '
            'of at least two tokens, or one of four.'
        )
    held = max(1, len(rows) // 8)
    fit = []
    for _, group in groupby(rows[:-held], key=lambda row: row.shape[1]):
        same = torch.cat(list(group))
        fit += same.split(max(1, TOKENS // same.shape[1]))
    return fit, rows[-held:]


def read_calibration(
    file: str | Path, teacher: str | Path, tokens: int = 8192
) -> list[Tensor]:
    """Batches of token ids from a text of the requested length.

    Args:
        file: ``.npz`` with token ids ``[N, L]`` in ``tokens``, or a text file, which is
            split into blocks of 512 tokens.
        teacher: Folder with the tokenizer that a text file needs.
        tokens: Number of tokens to read, positive; at least one row or block is read.

    Returns:
        Token ids ``[B, L]``, int64.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The number is not positive; the file is not a text, has no
            ``tokens`` or fewer than two in a row, or too little text.
    """
    if tokens < 1:
        raise ValueError(f'Calibration on {tokens} tokens: give a positive number.')
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f'No calibration text at {file}.')
    if file.suffix == '.npz':
        with open_arrays(file) as arrays:
            if 'tokens' not in arrays:
                raise ValueError(f'{file} has {arrays.files}, but needs "tokens".')
            found = arrays['tokens']
        if found.ndim != 2 or found.dtype.kind not in 'iu' or min(found.shape) < 1:
            raise ValueError(
                f'"tokens" in {file} is {found.dtype} {list(found.shape)}; it must be '
                'an integer array [N, L] that is not empty.'
            )
        if found.shape[1] < 2:
            raise ValueError(f'The rows of "tokens" in {file} have a single token.')
        ids = torch.from_numpy(found.astype('int64'))
        return list(ids[: max(1, tokens // ids.shape[1])].split(BATCH))
    tokenizer = load_tokenizer(teacher)
    ids = tokenizer(read_text(file), return_tensors='pt').input_ids[0]
    blocks = [block[None] for block in ids[:tokens].split(BLOCK) if len(block) > 1]
    if not blocks:
        raise ValueError(f'{file} has less than two tokens of text.')
    return blocks
