"""What one source has for the tensors of a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor

from mmtransmamba.transfer.subclone.channels import (
    ChannelMatcher,
    Selection,
    SizeMismatch,
    describe,
)
from mmtransmamba.transfer.subclone.layers import match_depth
from mmtransmamba.transfer.subclone.options import SKIP, SubcloneOptions
from mmtransmamba.transfer.subclone.pos_embed import (
    resample,
    source_grid_of,
    target_grid_of,
)
from mmtransmamba.transfer.subclone.report import KEPT, Entry
from mmtransmamba.transfer.weight_maps.base import Rule, WeightMap, count_layers

Source = tuple[WeightMap, Mapping[str, Tensor]]
"""A weight map and the weights, under the names it uses, that it takes from."""


@dataclass
class Taken:
    """Values for one target tensor, or the reason why there are none."""

    entry: Entry
    values: Tensor | None = None
    into: tuple[Tensor, ...] = ()


class Donor:
    """One source's offers for the target's tensors."""

    def __init__(
        self,
        target: Mapping[str, Tensor],
        source: Mapping[str, Tensor],
        weight_map: WeightMap,
        options: SubcloneOptions,
    ) -> None:
        self.target = target
        self.source = source
        self.map = weight_map
        self.options = options
        self.used: set[str] = set()
        depth = count_layers(target, weight_map.target_layer)
        if not depth or not count_layers(source, weight_map.source_layer):
            raise ValueError(nothing_matched(weight_map, source, target))
        self.layer_of = match_depth(
            options.layers, depth, count_layers(source, weight_map.source_layer)
        )
        self.matcher = ChannelMatcher(weight_map, target, source, options.importance)
        self.taken: set[str] = set()
        self.rule_of: dict[str, tuple[Rule, int | None]] = {}
        for rule in weight_map.rules:
            layered = '{i}' in rule.target
            for i in range(depth) if layered else (None,):
                name = rule.target.replace('{i}', str(i))
                if name in target:
                    self.rule_of.setdefault(name, (rule, i))

    def take(self, name: str) -> Taken | None:
        """What the source has for a target tensor; None if no rule names it."""
        if name not in self.rule_of:
            return None
        rule, layer = self.rule_of[name]
        entry = Entry(name, tuple(self.target[name].shape), KEPT)
        how = self._how(name)
        if how == SKIP:
            entry.detail = 'skipped as configured'
            return Taken(entry)
        source_layer = None if layer is None else self.layer_of[layer]
        if layer is not None and source_layer is None:
            entry.detail = 'the source has no such layer'
            return Taken(entry)
        source_name = rule.source.replace('{i}', str(source_layer))
        if source_name not in self.source:
            entry.detail = f'the source has no {source_name}'
            return Taken(entry)
        if rule.follows is not None:
            leader = rule.follows.replace('{i}', str(layer))
            if leader not in self.taken:
                entry.detail = f'as {leader}'
                return Taken(entry)
        entry.source = source_name
        entry.source_shape = tuple(self.source[source_name].shape)
        try:
            taken = self._copy(rule, entry, how, (source_layer or 0, layer or 0))
        except SizeMismatch as error:
            message = (
                f'{name} {entry.shape} and {source_name} {entry.source_shape}: {error}'
            )
            if not rule.optional:
                raise ValueError(
                    f'{self.map.name}: {message}. With width={how!r} no part can be '
                    f'taken; choose another width, or rules={{{name!r}: {SKIP!r}}}.'
                ) from error
            entry.detail = f'shapes differ from {source_name} {entry.source_shape}'
            entry.source = entry.source_shape = None
            return Taken(entry)
        self.taken.add(name)
        self.used.add(source_name)
        return taken

    def _how(self, name: str) -> str:
        """One of ``WIDTHS``, or ``'skip'``, for a target tensor."""
        for pattern, choice in (self.options.rules or {}).items():
            if fnmatchcase(name, pattern):
                return choice
        return self.options.width

    def _copy(
        self, rule: Rule, entry: Entry, how: str, layers: tuple[int, int]
    ) -> Taken:
        tensor = self.source[entry.source]
        notes = []
        resampled = False
        if rule.method == 'pos_embed':
            tensor, note, resampled = self._pos_embed(tensor, entry.shape)
            notes += note
        if tensor.ndim != len(entry.shape):
            raise SizeMismatch('the numbers of dimensions differ')
        chosen: list[Selection] = [
            self.matcher.select(axis, how, (size, wanted), layers)
            for axis, size, wanted in zip(
                rule.axes, tensor.shape, entry.shape, strict=True
            )
        ]
        values = tensor
        for dim, selection in enumerate(chosen):
            values = values.index_select(dim, selection.take.to(tensor.device))
        scale = rule.scale * self._rescaling(rule, how, tensor.shape, values.shape)
        if scale != 1:
            values = values * scale
            notes.append(f'times {scale:.4g}')

        entry.inherited = values.numel()
        whole = tensor.shape == values.shape == entry.shape
        if resampled:
            entry.action = 'interpolated'
        elif whole:
            entry.action = 'copied'
        else:
            entry.action = 'block' if how == 'block' else 'selected'
        if not whole:
            notes.insert(0, _describe_part(chosen, tensor.shape, entry.shape))
        entry.detail = ', '.join(notes)
        return Taken(entry, values, tuple(s.into for s in chosen))

    def _rescaling(
        self, rule: Rule, how: str, before: Sequence[int], after: Sequence[int]
    ) -> float:
        wanted = self.options.rescale
        if rule.fan_in is None or not (
            how == 'importance' if wanted is None else wanted
        ):
            return 1.0
        return (before[rule.fan_in] / after[rule.fan_in]) ** 0.5

    def _pos_embed(
        self, tensor: Tensor, shape: tuple[int, ...]
    ) -> tuple[Tensor, list[str], bool]:
        options = self.options
        extra, grid = source_grid_of(self.source, tensor.shape[1], options.source_grid)
        wanted = target_grid_of(shape[1], options.target_grid)
        notes = [f'{extra} extra token(s) dropped'] if extra else []
        if grid != wanted:
            notes.append(
                f'{grid[0]}x{grid[1]} to {wanted[0]}x{wanted[1]} '
                f'({options.interpolation})'
            )
        patches = resample(tensor[:, extra:], grid, wanted, options.interpolation)
        return patches, notes, grid != wanted


def _describe_part(
    chosen: Sequence[Selection], source: Sequence[int], target: Sequence[int]
) -> str:
    take = [describe(s.take, n) for s, n in zip(chosen, source, strict=True)]
    into = [describe(s.into, n) for s, n in zip(chosen, target, strict=True)]
    part = f'[{", ".join(take)}]'
    return part if take == into else f'{part} into [{", ".join(into)}]'


def nothing_matched(
    weight_map: WeightMap, source: Mapping[str, Tensor], target: Mapping[str, Tensor]
) -> str:
    """The message for a source and a target that share nothing under a map."""
    example = max(weight_map.rules, key=lambda rule: '{i}' in rule.target)
    return (
        f'The weight map {weight_map.name!r} matched nothing. It copies tensors such '
        f'as {example.source!r} to {example.target!r}; the source has '
        f'{list(source)[:4]}, the target {list(target)[:4]}.'
    )
