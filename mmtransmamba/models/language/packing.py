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


@dataclass
class TracedPacking:
    """Where the sequences lie, if that has to be said without reading a value.

    A graph that is compiled cannot gather sequences of lengths that it does not know.
    It keeps the rows, and has what runs along them begin anew instead.

    Attributes:
        ids: As of :class:`Packing`.
        is_token: As of :class:`Packing`.
        order: Places of the tokens, then those of the padding, ``[B, L]``: what runs
            along a row is not to see padding between two tokens.
        begins: Bool ``[B, L]``, in that order: where a sequence begins.
    """

    ids: Tensor
    is_token: Tensor
    order: Tensor
    begins: Tensor

    def apply(self, function: Callable[..., Tensor], *rows: Tensor) -> Tensor:
        """As :meth:`Packing.apply`, of a function that takes ``begins`` too."""
        ordered = [row.gather(1, _like(self.order, row)) for row in rows]
        output = function(*ordered, begins=self.begins)
        back = output.gather(1, _like(self.order.argsort(-1), output))
        return back.masked_fill(~_like(self.is_token, back), 0)

    def same_sequence(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor):
        """As :meth:`Packing.same_sequence`."""
        return self.ids[batch, query] == self.ids[batch, key]


def trace_packing(position_ids: Tensor, is_token: Tensor | None) -> TracedPacking:
    """As :func:`find_packing`, for a graph that is compiled.

    Rows of one sequence are no exception, as the graph cannot tell.
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
    """What a causal convolution sees of each token's own sequence.

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
    r"""Input and step sizes with which a recurrence forgets what was before.

    The state takes in :math:`\Delta_t x_t` and keeps :math:`e^{\Delta_t A}` of itself.
    Where a sequence begins, a :math:`\Delta'_t` so long that nothing is kept, and
    :math:`x'_t = x_t \Delta_t / \Delta'_t`, take in the same.

    Args:
        x: ``[B, L, C, ...]``.
        dt: ``[B, L, C]``.
        A: The slowest decay rates, ``[C]``.
        begins: Bool ``[B, L]``.

    Returns:
        :math:`x'` in float32 and :math:`\Delta'`; a skip past the state needs ``x``.
    """
    begins = begins[..., None]
    # e^-60 is 1e-26. Much longer steps would cost kernels that add them up precision.
    long = 60 / A.detach().abs().clamp_min(1e-20)
    share = torch.where(begins, dt / long, 1.0)
    share = share[(...,) + (None,) * (x.ndim - dt.ndim)]
    return x.float() * share, torch.where(begins, long, dt)


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
    """Whether some token's position is not the next one after the token before."""
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
    """An index ``[B, L]`` of tokens for all channels of ``[B, L, ...]``."""
    return index[(...,) + (None,) * (rows.ndim - 2)].expand_as(rows)


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
