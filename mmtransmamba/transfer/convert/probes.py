"""Tokens on which the layers of a model are measured: text, and synthetic recall."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

FIRST_ID = 3
"""Ids below are usually special tokens."""


@dataclass(frozen=True)
class Probe:
    """Rows of tokens, and where the next token is measured.

    Attributes:
        ids: Token ids ``[B, L]``, without padding.
        start: First position whose prediction counts; it predicts token ``start + 1``.
    """

    ids: Tensor
    start: int = 0

    @property
    def tokens(self) -> int:
        """Number of predictions that count."""
        return self.ids.shape[0] * (self.ids.shape[1] - self.start)


def text_probes(batches: Sequence[Tensor]) -> list[Probe]:
    """Probes of which every position counts."""
    return [Probe(batch) for batch in batches]


def recall_probes(
    vocab_size: int, context: int, tokens: int = 8192, length: int = 128, seed: int = 0
) -> list[Probe]:
    """Random tokens, twice in a row: the second half can be recalled from the first.

    What follows a token has occurred before exactly where the same token has, which is
    the pattern of induction heads (arXiv:2209.11895) and of associative recall.
    Likelihood from the language is of no use here.

    Args:
        vocab_size: Size of the teacher's vocabulary.
        context: Longest sequence of the teacher.
        tokens: Number of tokens in all rows, halves that do not count included.
        length: Tokens of a row; shorter if the context is.
        seed: Of the random tokens.

    Raises:
        ValueError: Vocabulary or context are too small.
    """
    half = min(length, context) // 2
    if half < 2 or vocab_size <= FIRST_ID + 1:
        raise ValueError(
            f'Recall needs rows of four tokens and some token ids; the teacher has a '
            f'context of {context} and {vocab_size} ids.'
        )
    rows = max(1, tokens // (2 * half))
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(FIRST_ID, vocab_size, (rows, half), generator=generator)
    ids = torch.cat([ids, ids], dim=1)
    # The first token of the second half is not determined by what precedes it.
    return [Probe(part, half) for part in ids.split(8)]
