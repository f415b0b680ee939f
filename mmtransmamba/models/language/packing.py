"""Rows that hold several sequences, one after the other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass
class Packing:
    """Where the sequences of a batch of rows lie.

    Attributes:
        ids: Number of each token's sequence within its row, ``[B, L]``; padding has
            that of the sequence before it.
        is_token: Bool ``[B, L]``, False for padding.
        groups: Sequences of similar lengths, as numbers of their tokens in the
            flattened rows: ``[S, M]``, shorter ones with their last token repeated.
        kept: Of each group, which are no repetitions, bool ``[S, M]``.
    """

    ids: Tensor
    is_token: Tensor
    groups: list[Tensor]
    kept: list[Tensor]

    def apply(self, function: Callable[..., Tensor], *rows: Tensor) -> Tensor:
        """Apply a causal function to each sequence by itself.

        Args:
            function: From ``[S, M, C]`` for each of ``rows`` to ``[S, M, ...]``;
                an output depends on no later input.
            *rows: ``[B, L, C]`` each.

        Returns:
            ``[B, L, ...]``, zero for padding.
        """
        flat = [row.flatten(0, 1) for row in rows]
        outputs, places = [], []
        for tokens, kept in zip(self.groups, self.kept, strict=True):
            where = tokens.flatten()
            parts = (
                row.index_select(0, where).unflatten(0, kept.shape) for row in flat
            )
            outputs.append(function(*parts)[kept])
            places.append(tokens[kept])
        values = torch.cat(outputs)
        result = values.new_zeros(self.ids.numel(), *values.shape[1:])
        result = result.index_copy(0, torch.cat(places), values)
        return result.unflatten(0, self.ids.shape)

    def same_sequence(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor):
        """A mask function of transformers: no token sees another sequence's."""
        return self.ids[batch, query] == self.ids[batch, key]

    def flash_arguments(self) -> dict[str, Tensor | int]:
        """What FlashAttention is told of the sequences, instead of a mask.

        Padding becomes sequences of its own.

        Raises:
            ValueError: There is padding inside a sequence.
        """
        rows = torch.arange(self.ids.shape[0], device=self.ids.device)[:, None]
        keys = (rows * self.ids.shape[1] + self.ids) * 2 + self.is_token
        runs, lengths = keys.flatten().unique_consecutive(return_counts=True)
        sequences = keys[self.is_token].unique_consecutive()
        if (runs % 2).sum() > len(sequences):
            raise ValueError(
                'A packed sequence has padding between its tokens, which '
                'FlashAttention cannot leave out; put padding behind the sequences.'
            )
        ends = F.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
        longest = int(lengths.max())
        return dict(
            cu_seq_lens_q=ends,
            cu_seq_lens_k=ends,
            max_length_q=longest,
            max_length_k=longest,
        )


# Where sequences begin depends on values, which a traced graph does not know.
@torch.compiler.disable
def find_packing(position_ids: Tensor, is_token: Tensor | None) -> Packing | None:
    """Find the sequences that are packed into rows.

    One begins wherever the position does not exceed that of the token before.

    Args:
        position_ids: ``[B, L]``.
        is_token: Bool ``[B, L]``, False for padding, whose positions say nothing.

    Returns:
        None if each row is one sequence.
    """
    batch, length = position_ids.shape
    if is_token is None:
        is_token = torch.ones_like(position_ids, dtype=torch.bool)
    steps = torch.arange(length, device=position_ids.device).expand(batch, -1)
    latest = steps.masked_fill(~is_token, -1).cummax(-1).values
    before = F.pad(latest[:, :-1], (1, 0), value=-1)
    previous = position_ids.gather(1, before.clamp_min(0))
    begins = is_token & (before >= 0) & (position_ids <= previous)
    if not begins.any():
        return None
    ids = begins.cumsum(-1)
    numbers = torch.arange(batch, device=ids.device)[:, None] * length + ids
    _, lengths = numbers[is_token].unique_consecutive(return_counts=True)
    tokens = is_token.flatten().nonzero().squeeze(-1)
    groups, kept = _group(tokens, lengths)
    return Packing(ids=ids, is_token=is_token, groups=groups, kept=kept)


@torch.compiler.disable
def has_jumps(position_ids: Tensor | None) -> bool:
    """Whether some token's position is not the next one after the token before."""
    return position_ids is not None and bool((position_ids.diff(dim=-1) != 1).any())


def see_everything(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """A mask function of transformers that hides nothing."""
    return key >= 0


def _group(tokens: Tensor, lengths: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Tokens of sequences whose lengths differ by less than a factor of two.

    One long sequence among many short ones would otherwise have all of them padded
    to its length.
    """
    firsts = lengths.cumsum(0) - lengths
    by_size = defaultdict(list)
    for i, length in enumerate(lengths.tolist()):
        by_size[length.bit_length()].append(i)
    groups, kept = [], []
    for members in by_size.values():
        sizes = lengths[members, None]
        steps = torch.arange(int(sizes.max()), device=tokens.device)
        groups.append(tokens[firsts[members, None] + steps.minimum(sizes - 1)])
        kept.append(steps < sizes)
    return groups, kept
