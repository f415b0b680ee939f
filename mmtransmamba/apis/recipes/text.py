"""The text of a transfer: what is trained on, and what is held out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmtransmamba.apis.recipes.request import BLOCK, PACKED, Request, has_token_ids
from mmtransmamba.datasets import PackedText, Slice, TokenSamples, collate_tokens

HELD_OUT = 64
"""Most blocks that are held out, and blocks of the budget for each of them."""


class TransferText:
    """Training and held-out text of a request.

    Args:
        request: The request.
        config: Config of the teacher.

    Attributes:
        block: Tokens of a block.
        held_out: Blocks that are held out: the last ones, or the first of ``val``.
        tokens: Tokens that are left for training.

    Raises:
        FileNotFoundError, ValueError: The text cannot be read, or is too short.
    """

    def __init__(self, request: Request, config: Any) -> None:
        self.request = request
        self._is_array = has_token_ids(request.data)
        context = config.max_position_embeddings
        self.block = min(BLOCK, context)
        arrays = {
            file: _read_ids(file, config.vocab_size)
            for file in (request.data, request.val)
            if file is not None and has_token_ids(file)
        }
        if self._is_array:
            self.block = min(arrays[request.data].shape[1], context)
        there = len(_build(self._source(self.block)))
        count = max(2, min(HELD_OUT, request.tokens // self.block // HELD_OUT))
        if request.val is None:
            self.held_out = min(count, max(1, there // 8))
            there -= self.held_out
        else:
            self.held_out = min(count, len(_build(self._val(self.block))))
        if there < 1:
            raise ValueError(
                f'{request.data} has a single block of {self.block} tokens; text to '
                'train on and text that is held out need two at least'
            )
        self.rows = there
        self.tokens = there * self.block

    def train(self, length: int, completion_only: bool = True) -> dict[str, Any]:
        """Config of the training text in sequences of a length.

        Raises:
            ValueError: The text, or a row of it, is shorter.
        """
        rows = self.rows if self._is_array else self.tokens // length
        if rows < 1 or (self._is_array and length > self.block):
            raise ValueError(
                f'{self.request.data} has no sequence of {length} tokens to train on'
            )
        source = self._source(length, completion_only)
        return dict(type='mmtransmamba.Slice', dataset=source, start=0, stop=rows)

    def validation(self) -> dict[str, Any]:
        """Config of the held-out text, in blocks."""
        if self.request.val is not None:
            source, start = self._val(self.block), 0
        else:
            source, start = self._source(self.block), self.rows
        stop = start + self.held_out
        return dict(type='mmtransmamba.Slice', dataset=source, start=start, stop=stop)

    def held_out_batches(self) -> list[dict[str, Tensor]]:
        """The held-out text, one block per batch."""
        text = _build(self.validation())
        return [collate_tokens([text[i]]) for i in range(len(text))]

    def last_rows(self, tokens: int) -> list[Tensor]:
        """Token ids ``[1, L]`` of the last blocks that are trained on."""
        text = _build(self.train(self.block))
        count = min(len(text), max(2, tokens // self.block))
        rows = [text[len(text) - count + i]['input_ids'] for i in range(count)]
        return list(torch.stack(rows).split(1))

    def _source(self, length: int, completion_only: bool = True) -> dict[str, Any]:
        return self._of(self.request.data, length, completion_only)

    def _val(self, length: int) -> dict[str, Any]:
        return self._of(self.request.val, length, True)

    def _of(self, file: str, length: int, completion_only: bool) -> dict[str, Any]:
        if has_token_ids(file):
            return dict(type='mmtransmamba.TokenSamples', file=file, length=length)
        prompts = {}
        if self.request.prompt_key is not None:
            prompts = dict(
                prompt_key=self.request.prompt_key, learn_prompts=not completion_only
            )
        return dict(
            type='mmtransmamba.PackedText',
            files=file,
            tokenizer=self.request.teacher,
            block_size=length,
            text_key=self.request.text_key,
            cache_dir=str(Path(self.request.out) / PACKED),
            **prompts,
        )


def _read_ids(file: str, vocab_size: int) -> np.ndarray:
    """Token ids ``[N, L]`` of a file, all of which the teacher has."""
    tokens = TokenSamples(file).tokens
    for token in (tokens.min(), tokens.max()):
        if not 0 <= token < vocab_size:
            raise ValueError(
                f'{file} has the token id {token}; the teacher has the ids 0 to '
                f'{vocab_size - 1}'
            )
    return tokens


def _build(config: Mapping[str, Any]) -> Any:
    kinds = {kind.__name__: kind for kind in (PackedText, Slice, TokenSamples)}
    given = dict(config)
    kind = kinds[given.pop('type').rpartition('.')[2]]
    if 'dataset' in given:
        given['dataset'] = _build(given['dataset'])
    return kind(**given)
