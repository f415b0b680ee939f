"""The reasoning tags as single tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmtransmamba.models.generation import repair_generation_config
from mmtransmamba.utils.reasoning_text import TAGS


@torch.no_grad()
def add_reasoning_tags(model: nn.Module, processor: Any) -> list[int]:
    """Make each of the eight tags a single token of the tokenizer and the model.

    By default the tags are ordinary text, as in LLaVA-CoT, and this function is not
    needed: they consist of tokens that the model knows, vocabulary and embeddings stay
    those of every other recipe, and training with frozen embeddings can learn them. As
    single tokens they make a response some 30 tokens shorter and cannot be misspelled;
    but their embeddings have to be learned.

    The tokens are not special ones, which decoding would omit. A new row of the
    embeddings, and of the output layer with its bias, is the mean of the rows of the
    tag's former tokens. Unused rows of a padded vocabulary are used first. If more are
    needed, the number of rows stays a multiple of 64 if it was one, and rows without a
    token are the mean of all. Nothing is drawn at random: a teacher and a student with
    the same embeddings stay equal. A student that is converted afterwards has the
    teacher's embeddings in any case.

    Args:
        model: A transformers model with a text decoder, possibly a hybrid; its
            embeddings may be tied. Changed in place.
        processor: Its processor or tokenizer, changed in place. Tags that it already
            has are left unchanged.

    Returns:
        The ids of :data:`~mmtransmamba.utils.reasoning_text.TAGS`.

    Raises:
        ValueError: The tokenizer has more tokens than the model has embeddings.
    """
    from transformers import AddedToken

    tokenizer = getattr(processor, 'tokenizer', processor)
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ValueError(
            f'The tokenizer has {len(tokenizer)} tokens, but the model embeddings of '
            f'{rows}; they do not belong together.'
        )
    known = tokenizer.get_vocab()
    pieces = {
        tag: tokenizer(tag, add_special_tokens=False).input_ids
        for tag in TAGS
        if tag not in known
    }
    tokenizer.add_tokens([AddedToken(tag, normalized=False) for tag in pieces])
    if len(tokenizer) > rows:
        _enlarge(model, len(tokenizer))
    for table in _tables(model):
        for tag, parts in pieces.items():
            table[tokenizer.convert_tokens_to_ids(tag)] = _mean(table[parts])
    repair_generation_config(model)
    return tokenizer.convert_tokens_to_ids(list(TAGS))


def _enlarge(model: nn.Module, tokens: int) -> None:
    rows = model.get_input_embeddings().weight.shape[0]
    model.resize_token_embeddings(
        tokens,
        pad_to_multiple_of=64 if rows % 64 == 0 else None,
        mean_resizing=False,  # mean resizing would draw them at random
    )
    for table in _tables(model):
        table[rows:] = _mean(table[:rows])


def _tables(model: nn.Module) -> list[Tensor]:
    """The distinct tensors with an entry for each token: ``[V, D]`` and ``[V]``."""
    embeddings, output = model.get_input_embeddings(), model.get_output_embeddings()
    tables = [embeddings.weight]
    if output is not None:
        tables += [output.weight, getattr(output, 'bias', None)]
    unique = {id(table): table for table in tables if table is not None}
    return list(unique.values())


def _mean(rows: Tensor) -> Tensor:
    # In half precision, the mean of many rows would not be exact.
    return rows.float().mean(0).to(rows.dtype)
