"""Selection of channels if source and target differ in width."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mmtransmamba.transfer.weight_maps.base import (
    EXACT,
    Space,
    WeightMap,
    count_layers,
    size_of,
)

WIDTHS = ('whole', 'block', 'uniform', 'importance')


class SizeMismatch(ValueError):
    """Sizes that must agree differ."""


@dataclass(frozen=True)
class Selection:
    """Positions along one axis: ``target[into] = source[take]``.

    Attributes:
        take: int64 ``[k]``, positions in the source.
        into: int64 ``[k]``, positions in the target.
    """

    take: Tensor
    into: Tensor


def spread(count: int, size: int) -> Tensor:
    """``count`` of ``size`` positions, evenly spaced, the first and last included."""
    if count == 1:
        return torch.zeros(1, dtype=torch.int64)
    return torch.linspace(0, size - 1, count, dtype=torch.float64).round().long()


def channel_importance(
    state: Mapping[str, Tensor], space: Space, layers: Iterable[int]
) -> Tensor:
    """Importance of each channel of a space, from the weights of a model.

    Samragh et al. ("Weight subcloning", 2023) rank the neurons of a pre-trained
    network by their magnitude, with one common order for everything on the residual
    stream, and keep the highest. They use magnitudes of activations on data, which
    :class:`ChannelMatcher` uses if they are given. This function needs no data: it
    sums, over all tensors that write or read the channel, the mean absolute weight
    along it, divided by the mean over channels so that all tensors count equally.

    Args:
        state: Weights of the source.
        space: The space; its tensors that are absent from ``state`` are skipped.
        layers: Layers to sum over.

    Returns:
        Float32 ``[channels]``.
    """
    total = None
    for template, dim in space.source:
        names = (
            [template.replace('{i}', str(i)) for i in layers]
            if '{i}' in template
            else [template]
        )
        for tensor in (state[name] for name in names if name in state):
            others = [d for d in range(tensor.ndim) if d != dim]
            part = tensor.float().abs()
            part = part.mean(others) if others else part
            if total is not None and part.shape != total.shape:
                continue  # a head that reads several concatenated tokens
            part = part / part.mean().clamp_min(1e-12)
            total = part if total is None else total + part
    return total


class ChannelMatcher:
    """Selects the channels of each space once.

    Args:
        weight_map: The map that defines the spaces.
        target: Weights of the target.
        source: Weights of the source.
        importance: Importance of the channels of a space, by the space's name, if it
            is given rather than computed from the weights.

    Raises:
        ValueError: It names a space that the map does not have.
    """

    def __init__(
        self,
        weight_map: WeightMap,
        target: Mapping[str, Tensor],
        source: Mapping[str, Tensor],
        importance: Mapping[str, Tensor] | None = None,
    ) -> None:
        self._importance = importance or {}
        self._spaces = {space.name: space for space in weight_map.spaces}
        if unknown := sorted(set(self._importance) - set(self._spaces)):
            raise ValueError(
                f'importance: {unknown} are no spaces of the map, which has '
                f'{sorted(self._spaces)}.'
            )
        self._target = target
        self._source = source
        self._depth = count_layers(source, weight_map.source_layer)
        self._map = weight_map
        self._layers = weight_map.target_layers(target)
        self._chosen: dict[tuple, Tensor] = {}

    def select(
        self,
        axis: str | tuple[str, ...],
        width: str,
        sizes: tuple[int, int],
        layers: tuple[int, int],
    ) -> Selection:
        """Positions along one axis of a tensor.

        Args:
            axis: A space, several that are concatenated, or EXACT.
            width: One of :data:`WIDTHS`.
            sizes: Sizes of this axis in source and target.
            layers: Layers of source and target that contain the tensor, 0 outside
                layers.

        Raises:
            SizeMismatch: The sizes contradict the axis.
        """
        if axis == EXACT or width == 'whole':
            if sizes[0] != sizes[1]:
                raise SizeMismatch(f'{sizes[0]} and {sizes[1]} must agree')
            every = torch.arange(sizes[0])
            return Selection(every, every)
        if isinstance(axis, str):
            own = self._source_size(axis, layers[0])
            if own != sizes[0]:
                raise SizeMismatch(f'{sizes[0]} are not the {own} of {axis!r}')
            return self._select_space(axis, width, sizes, layers[0])
        return self._select_parts(axis, width, sizes, layers)

    def _source_size(self, space: str, layer: int) -> int:
        for place in self._spaces[space].source:
            try:
                return size_of(self._source, place, layer)
            except KeyError:
                continue
        raise self._unknown_size(space)

    def _target_size(self, space: str, layer: int) -> int:
        template, dim = self._spaces[space].target
        name = self._map.target_name(template, self._layers[layer])
        if name not in self._target:
            raise self._unknown_size(space)
        return self._target[name].shape[dim]

    def _unknown_size(self, space: str) -> SizeMismatch:
        return SizeMismatch(f'no tensor gives the number of channels of {space!r}')

    def _select_space(
        self, space: str, width: str, sizes: tuple[int, int], layer: int
    ) -> Selection:
        size, wanted = sizes
        count = min(size, wanted)
        ends = torch.arange(count)
        if width == 'uniform':
            return Selection(spread(count, size), spread(count, wanted))
        if width == 'importance' and count < size:
            return Selection(self._most_important(space, size, count, layer), ends)
        return Selection(ends, ends)

    def _most_important(self, space: str, size: int, count: int, layer: int) -> Tensor:
        definition = self._spaces[space]
        key = (space, count, layer if definition.per_layer else None)
        if key not in self._chosen:
            importance = self._importance.get(space)
            if importance is None:
                layers = [layer] if definition.per_layer else range(self._depth)
                importance = channel_importance(self._source, definition, layers)
            elif importance.shape != (size,):
                raise ValueError(
                    f'importance[{space!r}] has the shape {list(importance.shape)}, '
                    f'and the source {size} channels there.'
                )
            self._chosen[key] = importance.topk(count).indices.sort().values
        return self._chosen[key]

    def _select_parts(
        self,
        spaces: tuple[str, ...],
        width: str,
        sizes: tuple[int, int],
        layers: tuple[int, int],
    ) -> Selection:
        """Select channels in each of the parts concatenated along the axis."""
        take, into, ends = [], [], (0, 0)
        for space in spaces:
            part = (
                self._source_size(space, layers[0]),
                self._target_size(space, layers[1]),
            )
            chosen = self._select_space(space, width, part, layers[0])
            take.append(chosen.take + ends[0])
            into.append(chosen.into + ends[1])
            ends = (ends[0] + part[0], ends[1] + part[1])
        if ends != sizes:
            raise SizeMismatch(f'{sizes} are not {ends}, the sum of {spaces}')
        return Selection(torch.cat(take), torch.cat(into))


def describe(positions: Tensor, size: int) -> str:
    """Positions as slices, ``'0:192'``, or as a count, ``'96 of 192'``."""
    breaks = (positions.diff() != 1).nonzero().flatten() + 1
    runs = positions.tensor_split(breaks.tolist())
    if len(runs) > 3:
        return f'{len(positions)} of {size}'
    return '+'.join(f'{int(run[0])}:{int(run[-1]) + 1}' for run in runs)
