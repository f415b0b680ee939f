"""Likelihood of a text after another one, under a language model."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Likelihood:
    """Of one continuation.

    Attributes:
        log: Sum of its tokens' log-probabilities, in nats.
        greedy: Whether every token is the likeliest.
        tokens: How many there are.
    """

    log: float
    greedy: bool
    tokens: int


def encode_pair(
    tokenizer: Any, context: str, continuation: str
) -> tuple[list[int], list[int]]:
    """Token ids of a context and its continuation, as lm-evaluation-harness has them.

    Spaces at the end of the context count as the continuation's. Both are encoded
    together, with the special tokens that the tokenizer adds by itself; what the
    context alone has is taken off.

    Raises:
        ValueError: There is no context, and the tokenizer has no token to begin with.
    """
    kept = context.rstrip()
    continuation = context[len(kept) :] + continuation
    if not kept:
        prefix = tokenizer.bos_token_id
        if prefix is None:
            prefix = tokenizer.eos_token_id
        if prefix is None:
            raise ValueError(
                f'{type(tokenizer).__name__} has neither bos_token nor eos_token; a '
                'question without context needs one of them'
            )
        return [prefix], tokenizer.encode(continuation, add_special_tokens=False)
    before = tokenizer.encode(kept)
    return before, tokenizer.encode(kept + continuation)[len(before) :]


def longest_input(model: nn.Module) -> int:
    """Tokens that a language model sees at a time, as its config says.

    A recurrent model's config says nothing, and there is no limit.
    """
    config = model.config.get_text_config()
    return getattr(config, 'max_position_embeddings', None) or sys.maxsize


@torch.inference_mode()
def log_likelihoods(
    model: nn.Module,
    pairs: Sequence[tuple[list[int], list[int]]],
    batch_tokens: int = 4096,
    max_length: int | None = None,
) -> list[Likelihood]:
    r""":math:`\sum_t \log p(y_t \mid x, y_{<t})` of continuations y after contexts x.

    Rows are padded on the right, where a causal model cannot see the padding. Pairs
    that differ in their last token alone, such as answers of one token to the same
    question, are one row. A pair that is too long loses its first tokens.

    Args:
        model: A causal language model of transformers, in evaluation mode.
        pairs: Token ids of contexts and continuations, neither empty.
        batch_tokens: Tokens of a batch, padding included.
        max_length: Tokens the model sees at a time; by default
            ``max_position_embeddings`` of the config, without limit if it has none.

    Returns:
        One for each pair, in their order.

    Raises:
        ValueError: A context or continuation is empty, or the model answers NaN.
    """
    limit = max_length or longest_input(model)
    rows: dict[tuple[int, ...], list[tuple[int, tuple[int, ...]]]] = {}
    for number, (before, after) in enumerate(pairs):
        if not before or not after:
            raise ValueError(
                f'pair {number} has {len(before)} tokens of context and {len(after)} '
                'of continuation; each needs one at least'
            )
        ids = tuple(before + after)[-(limit + 1) :]
        wanted = ids[-min(len(after), len(ids) - 1) :]
        rows.setdefault(ids[:-1], []).append((number, wanted))
    found: list[Likelihood | None] = [None] * len(pairs)
    # Long rows first: memory runs out at once or not at all.
    ordered = sorted(rows, key=lambda row: -len(row))
    while ordered:
        count = max(1, batch_tokens // len(ordered[0]))
        batch, ordered = ordered[:count], ordered[count:]
        for row, logits in zip(batch, _logits(model, batch), strict=True):
            for number, wanted in rows[row]:
                likelihood = _likelihood(logits[-len(wanted) :], wanted)
                if math.isnan(likelihood.log):
                    raise ValueError(
                        f'{type(model).__name__} in {model.dtype} answers NaN to pair '
                        f'{number}, whose likelihood then means nothing; check its '
                        'weights, or choose a dtype with a larger range'
                    )
                found[number] = likelihood
    return found


def _logits(model: nn.Module, rows: list[tuple[int, ...]]) -> list[Tensor]:
    """Logits ``[L, V]`` of rows of L tokens each, of which the first is the longest."""
    ids = torch.zeros(len(rows), len(rows[0]), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    ids = ids.to(next(model.parameters()).device)
    logits = model(input_ids=ids, use_cache=False).logits
    return [own[: len(row)] for own, row in zip(logits, rows, strict=True)]


def _likelihood(logits: Tensor, targets: Sequence[int]) -> Likelihood:
    wanted = torch.tensor(targets, device=logits.device)
    logs = logits.float().log_softmax(-1)
    return Likelihood(
        log=float(logs.gather(-1, wanted[:, None]).sum()),
        greedy=bool((logits.argmax(-1) == wanted).all()),
        tokens=len(targets),
    )
