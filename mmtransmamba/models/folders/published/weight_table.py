"""Table of the tensors of a published folder, which is checked as a whole."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from mmtransmamba.models.checkpoint import CheckpointError
from mmtransmamba.models.fit import refuse
from mmtransmamba.models.folders.sources import TensorSource

_WORDS = 'embed_tokens.weight'
Part = Callable[[Tensor], Tensor]
"""Makes a tensor of this package of a published one."""


@dataclass(frozen=True)
class Entry:
    """A published tensor.

    Attributes:
        name: Its name in the folder.
        shape: Its shape, by the config.
        parts: Function that returns the resulting tensors by their names here. Empty
            for a tensor that the published code does not use. Parts of several entries
            with the same name are joined row by row.
    """

    name: str
    shape: tuple[int, ...]
    parts: Mapping[str, Part]


def whole(tensor: Tensor) -> Tensor:
    """The unchanged tensor."""
    return tensor


def in_float32(tensor: Tensor) -> Tensor:
    """The tensor in float32, for parameters that need more than half precision."""
    return tensor.float()


def twice_in_float32(tensor: Tensor) -> Tensor:
    """Double the tensor, in float32."""
    return 2 * tensor.float()


_EXACT = (in_float32, twice_in_float32)


def row_parts(sizes: Mapping[str, int]) -> dict[str, Part]:
    """Split a tensor into consecutive blocks of rows.

    Args:
        sizes: Number of rows by name, in order.
    """
    parts, start = {}, 0
    for name, size in sizes.items():
        parts[name] = lambda tensor, begin=start, end=start + size: tensor[begin:end]
        start += size
    return parts


def rows(name: str, sizes: Mapping[str, int], *rest: int) -> Entry:
    """A tensor that contains several others, stacked by rows.

    Args:
        name: Its name in the folder.
        sizes: Number of rows by the name here, in order.
        *rest: Its other dimensions.
    """
    return Entry(name, (sum(sizes.values()), *rest), row_parts(sizes))


def padded_rows(count: int) -> Part:
    """Append rows, each the mean of the others, up to ``count`` rows."""

    def pad(tensor: Tensor) -> Tensor:
        missing = count - tensor.shape[0]
        mean = tensor.float().mean(0, keepdim=True).to(tensor.dtype)
        return torch.cat((tensor, mean.expand(missing, *tensor.shape[1:])))

    return pad


def entries_of(
    model_class: type[nn.Module],
    config: Any,
    published_name: Callable[[str], str],
    special: Iterable[Entry] = (),
) -> list[Entry]:
    """The table of a model, most of whose tensors are only renamed.

    Args:
        model_class: The class here.
        config: Its config, which gives the shapes.
        published_name: Maps a tensor's name here to its published name.
        special: Entries of tensors that differ in more than their names.
    """
    special = list(special)
    covered = {name for entry in special for name in entry.parts}
    with torch.device('meta'):
        model = model_class(config)
    computed = set(model.all_tied_weights_keys) | covered
    return special + [
        Entry(published_name(name), tuple(tensor.shape), {name: whole})
        for name, tensor in model.state_dict().items()
        if name not in computed
    ]


class TableSource(TensorSource):
    """The tensors of a published folder under the names of this package.

    All have the dtype of the word embeddings, as in the published code. A folder may
    mix dtypes: LLaVA-1.5 has float16, and its tower, elsewhere, float32.

    Args:
        source: The folder's tensors.
        entries: The table.
        where: The folder, for messages.
        unused: Pattern of names that may be present and are not used.

    Raises:
        CheckpointError: A tensor of the table is missing or has another shape, or a
            tensor of the folder is not in the table.
    """

    def __init__(
        self,
        source: TensorSource,
        entries: Iterable[Entry],
        where: Any,
        unused: str | None = None,
    ) -> None:
        entries = list(entries)
        self._source = source
        self._origin: dict[str, list[tuple[str, Part]]] = {}
        for entry in entries:
            for target, part in entry.parts.items():
                self._origin.setdefault(target, []).append((entry.name, part))
        known = {entry.name for entry in entries}
        wanted = [e for e in entries if e.parts or e.name in source]
        refuse(
            f'The weights in "{where}" do not fit its config',
            missing=sorted(e.name for e in wanted if e.name not in source),
            unexpected=sorted(
                name
                for name in source
                if name not in known and not (unused and re.search(unused, name))
            ),
            mismatched=sorted(
                f'{e.name} (file {list(source.shape(e.name))}, config {list(e.shape)})'
                for e in wanted
                if e.name in source and source.shape(e.name) != e.shape
            ),
        )
        integers = [e.name for e in wanted if not source.is_real(e.name)]
        if integers:
            raise CheckpointError(
                f'The weights in "{where}": {integers[0]} has integers, but weights '
                'are real numbers.'
            )

    @cached_property
    def _dtype(self) -> torch.dtype:
        (words,) = (name for name in self._origin if name.endswith(_WORDS))
        return self._source[self._origin[words][0][0]].dtype

    def __getitem__(self, name: str) -> Tensor:
        parts = self._origin[name]
        # A copy; otherwise each part of a fused tensor would keep all of it in memory.
        tensor = torch.cat([part(self._source[origin]) for origin, part in parts])
        if any(part in _EXACT for _, part in parts):
            return tensor
        return tensor.to(self._dtype)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(
            torch.cat(
                [
                    part(torch.empty(self._source.shape(origin), device='meta'))
                    for origin, part in self._origin[name]
                ]
            ).shape
        )

    def is_real(self, name: str) -> bool:
        return all(self._source.is_real(origin) for origin, _ in self._origin[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._origin)

    def __len__(self) -> int:
        return len(self._origin)
