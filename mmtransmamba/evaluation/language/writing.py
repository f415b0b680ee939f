"""Answers that a language model writes itself, token by token."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from mmtransmamba.evaluation.language.likelihood import longest_input
from mmtransmamba.utils.generation_settings import plain_settings

EXTRA = 2
"""Tokens beyond those of the answer, so that a longer word is noticed."""


@torch.inference_mode()
def write_answers(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[tuple[list[int], int]],
    batch_tokens: int = 4096,
    max_length: int | None = None,
) -> list[str]:
    """The likeliest continuation of prompts, token by token (greedy search).

    Prompts are padded on the left. Equal prompts are continued once. A prompt that is
    too long loses its first tokens.

    Args:
        model: A causal language model of transformers, in evaluation mode.
        tokenizer: Its tokenizer.
        prompts: Token ids of a prompt, and the number of tokens of the answer.
        batch_tokens: Tokens of a batch, padding included.
        max_length: Tokens that the model sees at a time; by default
            ``max_position_embeddings`` of the config, without limit if it has none.

    Returns:
        The text behind each prompt, in their order.
    """
    limit = max_length or longest_input(model)
    rows: dict[tuple[tuple[int, ...], int], list[int]] = {}
    for number, (ids, count) in enumerate(prompts):
        count += EXTRA
        rows.setdefault((tuple(ids[-max(limit - count, 1) :]), count), []).append(
            number
        )
    found = [''] * len(prompts)
    # Long rows first: memory runs out at once or not at all.
    ordered = sorted(rows, key=lambda row: (-len(row[0]), -row[1]))
    while ordered:
        longest = len(ordered[0][0]) + max(count for _, count in ordered)
        size = max(1, batch_tokens // longest)
        # All rows of a batch get as many tokens as the longest answer has.
        while size > 1 and _length(ordered[:size]) > limit:
            size -= 1
        batch, ordered = ordered[:size], ordered[size:]
        for row, text in zip(batch, _continue(model, tokenizer, batch), strict=True):
            for number in rows[row]:
                found[number] = text
    return found


def _length(batch: Sequence[tuple[tuple[int, ...], int]]) -> int:
    """Tokens of the longest prompt and the longest answer."""
    return max(len(ids) for ids, _ in batch) + max(count for _, count in batch)


def _continue(
    model: nn.Module, tokenizer: Any, batch: list[tuple[tuple[int, ...], int]]
) -> list[str]:
    longest = max(len(ids) for ids, _ in batch)
    device = next(model.parameters()).device
    padded = torch.zeros(len(batch), longest, dtype=torch.long)
    mask = torch.zeros_like(padded)
    for i, (ids, _) in enumerate(batch):
        padded[i, longest - len(ids) :] = torch.tensor(ids)
        mask[i, longest - len(ids) :] = 1
    with plain_settings(model):
        written = model.generate(
            padded.to(device),
            attention_mask=mask.to(device),
            max_new_tokens=max(count for _, count in batch),
            do_sample=False,
            pad_token_id=0,
        )
    ends = model.generation_config.eos_token_id
    ends = set(ends) if isinstance(ends, list) else {ends}
    texts = []
    for row, (_, count) in zip(written.tolist(), batch, strict=True):
        new = row[longest:][:count]
        end = next((i for i, token in enumerate(new) if token in ends), len(new))
        texts.append(tokenizer.decode(new[:end], skip_special_tokens=True))
    return texts


def says_letter(written: str, letter: str) -> bool:
    """Whether a text begins with a letter that stands for an option.

    A capital letter before another word is not one: the answer may begin with "A".
    """
    found = re.match(r'\W*(\w+)\b(?![ \t]+\w)', written)
    return found is not None and found[1] == letter.strip()


def same_words(written: str, answer: str) -> bool:
    """Whether a text begins with the words of an answer, ignoring case and marks."""
    words, wanted = (re.findall(r'\w+', text.lower()) for text in (written, answer))
    return bool(wanted) and words[: len(wanted)] == wanted
