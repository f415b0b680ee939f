"""The tags of reasoning as tokens of their own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmtransmamba.models.generation import repair_generation_config
from mmtransmamba.utils.reasoning_text import TAGS


@torch.no_grad()
def add_reasoning_tags(model: nn.Module, processor: Any) -> list[int]:
    """Make each of the eight tags one token, of the tokenizer and of the model.

    By default the tags are text as any other, as in LLaVA-CoT, and this function is not
    needed: they consist of tokens that the model knows, vocabulary and embeddings stay
    those of every other recipe, and training that freezes the embeddings can learn
    them. As tokens of their own they make a response shorter by some 30 tokens and
    cannot be misspelled; but their embeddings have to be learned.

    The tokens are not special ones, which decoding would leave out. A new row of the
    embeddings, and of the output layer with its bias, is the mean of the rows that the
    tag was made of. Rows that a padded vocabulary has to spare are used first; if more
    are needed, the number of rows stays a multiple of 64 if it was one, and those that
    no token uses are the mean of all. Nothing is drawn at random: a teacher and a
    student with the same embeddings have the same ones afterwards. A student that is
    converted after this has the teacher's in any case.

    Args:
        model: A transformers model with a text decoder, a hybrid too; its embeddings
            may be tied. It is changed.
        processor: Its processor or tokenizer; it is changed, too. Tags that it has
            already stay as they are.

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
        mean_resizing=False,  # this would draw them at random
    )
    for table in _tables(model):
        table[rows:] = _mean(table[:rows])


def _tables(model: nn.Module) -> list[Tensor]:
    """What has an entry for each token, each of it once: ``[V, D]`` and ``[V]``."""
    embeddings, output = model.get_input_embeddings(), model.get_output_embeddings()
    tables = [embeddings.weight]
    if output is not None:
        tables += [output.weight, getattr(output, 'bias', None)]
    unique = {id(table): table for table in tables if table is not None}
    return list(unique.values())


def _mean(rows: Tensor) -> Tensor:
    # In half precision the mean of many rows would not be exact.
    return rows.float().mean(0).to(rows.dtype)
