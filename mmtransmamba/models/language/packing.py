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
    """Positions of the sequences in a batch of rows.

    Attributes:
        ids: Index of each token's sequence within its row, ``[B, L]``; padding has
            that of the preceding sequence.
        is_token: Bool ``[B, L]``, False for padding.
        groups: Sequences of similar lengths, as indices of their tokens in the
            flattened rows: ``[S, M]``, shorter ones padded with their last token.
        kept: For each group, bool ``[S, M]``, False for such padding.
    """

    ids: Tensor
    is_token: Tensor
    groups: list[Tensor]
    kept: list[Tensor]

    def apply(self, function: Callable[..., Tensor], *rows: Tensor) -> Tensor:
        """Apply a causal function to each sequence separately.

        Args:
            function: From ``[S, M, C]`` for each of ``rows`` to ``[S, M, ...]``;
                an output does not depend on later inputs.
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
        """A mask function of transformers: tokens see only their own sequence."""
        return self.ids[batch, query] == self.ids[batch, key]

    def flash_arguments(self) -> dict[str, Tensor | int]:
        """FlashAttention's description of the sequences, in place of a mask.

        Padding forms sequences of its own.

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


@dataclass
class TracedPacking:
    """Positions of the sequences, determined without reading a value.

    A compiled graph cannot gather sequences of unknown lengths. It keeps the rows, and
    resets computations along a row where a sequence begins.

    Attributes:
        ids: See :class:`Packing`.
        is_token: See :class:`Packing`.
        order: Indices of the tokens, then those of the padding, ``[B, L]``:
            computations along a row must not see padding between two tokens.
        begins: Bool ``[B, L]``, in that order: where a sequence begins.
    """

    ids: Tensor
    is_token: Tensor
    order: Tensor
    begins: Tensor

    def apply(self, function: Callable[..., Tensor], *rows: Tensor) -> Tensor:
        """Like :meth:`Packing.apply`, for a function that also takes ``begins``."""
        ordered = [row.gather(1, _like(self.order, row)) for row in rows]
        output = function(*ordered, begins=self.begins)
        back = output.gather(1, _like(self.order.argsort(-1), output))
        return back.masked_fill(~_like(self.is_token, back), 0)

    def same_sequence(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor):
        """See :meth:`Packing.same_sequence`."""
        return self.ids[batch, query] == self.ids[batch, key]


def trace_packing(position_ids: Tensor, is_token: Tensor | None) -> TracedPacking:
    """Like :func:`find_packing`, for a compiled graph.

    Rows with one sequence are not treated separately, as the graph cannot detect them.
    """
    if is_token is None:
        is_token = torch.ones_like(position_ids, dtype=torch.bool)
    begins = _begins(position_ids, is_token)
    order = (~is_token).int().argsort(dim=-1, stable=True)
    return TracedPacking(
        ids=begins.cumsum(-1),
        is_token=is_token,
        order=order,
        begins=begins.gather(1, order),
    )


def windows(x: Tensor, taps: int, begins: Tensor) -> Tensor:
    """Windows of a causal convolution, limited to each token's own sequence.

    Args:
        x: ``[B, L, C]``.
        taps: Length of a window.
        begins: Bool ``[B, L]``, where a sequence begins.

    Returns:
        ``[B * L, C, taps]``, zero before the beginning.
    """
    ids = begins.cumsum(-1)
    seen = []
    for back in reversed(range(taps)):
        before = F.pad(x, (0, 0, back, 0))[:, : x.shape[1]]
        own = F.pad(ids, (back, 0), value=-1)[:, : x.shape[1]] == ids
        seen.append(before * own[..., None])
    return torch.stack(seen, dim=-1).flatten(0, 1)


def restart(x: Tensor, dt: Tensor, A: Tensor, begins: Tensor) -> tuple[Tensor, Tensor]:
    r"""Input and step sizes that make a recurrence forget previous sequences.

    The state adds :math:`\Delta_t x_t` and decays by :math:`e^{\Delta_t A}`. Where a
    sequence begins, :math:`\Delta'_t` is so long that nothing is kept, and
    :math:`x'_t = x_t \Delta_t / \Delta'_t`, so that the same input is added.

    Args:
        x: ``[B, L, C, ...]``.
        dt: ``[B, L, C]``.
        A: The slowest decay rates, ``[C]``.
        begins: Bool ``[B, L]``.

    Returns:
        :math:`x'` in float32 and :math:`\Delta'`; a skip connection needs ``x``.
    """
    begins = begins[..., None]
    # e^-60 is 1e-26. Much longer steps would lose precision in kernels that sum them.
    long = 60 / A.detach().abs().clamp_min(1e-20)
    share = torch.where(begins, dt / long, 1.0)
    share = share[(...,) + (None,) * (x.ndim - dt.ndim)]
    return x.float() * share, torch.where(begins, long, dt)


# The positions of sequences depend on values, which a traced graph does not know.
@torch.compiler.disable
def find_packing(position_ids: Tensor, is_token: Tensor | None) -> Packing | None:
    """Find the sequences that are packed into rows.

    A sequence begins wherever the position does not exceed that of the previous token.

    Args:
        position_ids: ``[B, L]``.
        is_token: Bool ``[B, L]``, False for padding, whose positions are ignored.

    Returns:
        None if each row is one sequence.
    """
    batch, length = position_ids.shape
    if is_token is None:
        is_token = torch.ones_like(position_ids, dtype=torch.bool)
    begins = _begins(position_ids, is_token)
    if not begins.any():
        return None
    ids = begins.cumsum(-1)
    numbers = torch.arange(batch, device=ids.device)[:, None] * length + ids
    _, lengths = numbers[is_token].unique_consecutive(return_counts=True)
    tokens = is_token.flatten().nonzero().squeeze(-1)
    groups, kept = _group(tokens, lengths)
    return Packing(ids=ids, is_token=is_token, groups=groups, kept=kept)


def has_jumps(position_ids: Tensor) -> bool:
    """Whether the position of any token is not one more than the previous token's."""
    return bool((position_ids.diff(dim=-1) != 1).any())


def see_everything(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """A mask function of transformers that hides nothing."""
    return key >= 0


def _begins(position_ids: Tensor, is_token: Tensor) -> Tensor:
    """Where a sequence begins that is not the first of its row, bool ``[B, L]``."""
    batch, length = position_ids.shape
    steps = torch.arange(length, device=position_ids.device).expand(batch, -1)
    latest = steps.masked_fill(~is_token, -1).cummax(-1).values
    before = F.pad(latest[:, :-1], (1, 0), value=-1)
    previous = position_ids.gather(1, before.clamp_min(0))
    return is_token & (before >= 0) & (position_ids <= previous)


def _like(index: Tensor, rows: Tensor) -> Tensor:
    """An index ``[B, L]`` of tokens, expanded to all channels of ``[B, L, ...]``."""
    return index[(...,) + (None,) * (rows.ndim - 2)].expand_as(rows)


def _group(tokens: Tensor, lengths: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Tokens of sequences whose lengths differ by less than a factor of two.

    With a single group, one long sequence among many short ones would cause all of
    them to be padded to its length.
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
