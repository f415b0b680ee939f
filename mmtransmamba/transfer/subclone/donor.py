"""The values that one source provides for the tensors of a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from mmtransmamba.transfer.subclone.channels import (
    ChannelMatcher,
    Selection,
    SizeMismatch,
    describe,
)
from mmtransmamba.transfer.subclone.inflate import TIME, inflate
from mmtransmamba.transfer.subclone.layers import match_depth
from mmtransmamba.transfer.subclone.options import SKIP, SubcloneOptions
from mmtransmamba.transfer.subclone.pos_embed import (
    resample,
    source_grid_of,
    target_grid_of,
    with_class_token,
)
from mmtransmamba.transfer.subclone.report import KEPT, Entry
from mmtransmamba.transfer.weight_maps.base import (
    EXACT,
    Rule,
    WeightMap,
    count_layers,
)

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
        self.layers = weight_map.target_layers(target)
        source_depth = count_layers(source, weight_map.source_layer)
        if not self.layers or not source_depth:
            raise ValueError(nothing_matched(weight_map, source, target))
        self.layer_of = match_depth(options.layers, len(self.layers), source_depth)
        self.matcher = ChannelMatcher(weight_map, target, source, options.importance)
        self.taken: set[str] = set()
        self.rule_of: dict[str, tuple[Rule, int | None]] = {}
        for rule in weight_map.rules:
            names = weight_map.target_names(rule.target, self.layers)
            for name, layer in names.items():
                if name in target:
                    self.rule_of.setdefault(name, (rule, layer))

    def take(self, name: str) -> Taken | None:
        """The source's values for a target tensor; None if no rule names it."""
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
        source_name = self._source_name(rule, source_layer)
        if source_name not in self.source:
            if self._other_layers_have(rule):
                raise ValueError(
                    f'{self.map.name}: the source has no {source_name}, of which '
                    f'{name} is made, though its other layers have one.'
                )
            entry.detail = f'the source has no {source_name}'
            return Taken(entry)
        reason = self._held_back(rule, layer)
        if reason:
            entry.detail = reason
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

    def _other_layers_have(self, rule: Rule) -> bool:
        """Whether a tensor that a layer of the source lacks exists in another one."""
        return any(
            template.replace('{i}', str(layer)) in self.source
            for template in (rule.source, rule.otherwise)
            if template is not None and '{i}' in template
            for layer in self.layer_of
            if layer is not None
        )

    def _source_name(self, rule: Rule, layer: int | None) -> str:
        name = rule.source.replace('{i}', str(layer))
        if name in self.source or rule.otherwise is None:
            return name
        return rule.otherwise.replace('{i}', str(layer))

    def _held_back(self, rule: Rule, layer: int | None) -> str:
        """Why a rule does not apply in a layer of the target; '' if it does."""
        own = None if layer is None else self.layers[layer]
        if rule.follows is not None:
            leader = self.map.target_name(rule.follows, own)
            if leader not in self.taken:
                return f'as {leader}'
        if rule.unless is not None:
            other = self.map.target_name(rule.unless, own)
            if other in self.target:
                return f'not with {other}'
        return ''

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
        axes = list(rule.axes)
        positions = None
        resampled = False
        if rule.method == 'pos_embed':
            tensor, positions, notes, resampled = self._pos_embed(tensor, entry.shape)
        if rule.method == 'inflate' and tensor.ndim < len(entry.shape):
            frames = entry.shape[TIME]
            tensor = inflate(tensor, frames)
            axes.insert(TIME, EXACT)
            notes.append(f'in the middle of {frames} frame(s)')
        if tensor.ndim != len(entry.shape):
            raise SizeMismatch('the numbers of dimensions differ')
        chosen: list[Selection] = []
        for axis, size, wanted in zip(axes, tensor.shape, entry.shape, strict=True):
            if positions is not None and len(chosen) == 1:
                chosen.append(Selection(torch.arange(size), positions))
            else:
                chosen.append(self.matcher.select(axis, how, (size, wanted), layers))
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
    ) -> tuple[Tensor, Tensor, list[str], bool]:
        """The embedding on the target's grid, and the target's positions it is for."""
        options = self.options
        extra, grid = source_grid_of(self.source, tensor.shape[1], options.source_grid)
        cls_at = self.map.cls_at if 'cls_token' in self.target else None
        wanted = target_grid_of(shape[1] - (cls_at is not None), options.target_grid)
        patches = resample(tensor[:, extra:], grid, wanted, options.interpolation)
        token = tensor[:, :1] if extra and 'cls_token' in self.source else None
        notes = []
        if cls_at is None:
            values, positions = patches, torch.arange(shape[1])
        else:
            at = cls_at(patches.shape[1])
            values, positions = with_class_token(patches, token, at)
            if token is not None:
                notes.append(f'class token at {at}')
        dropped = extra + patches.shape[1] - values.shape[1]
        if dropped:
            notes.append(f'{dropped} extra token(s) dropped')
        if grid != wanted:
            notes.append(
                f'{grid[0]}x{grid[1]} to {wanted[0]}x{wanted[1]} '
                f'({options.interpolation})'
            )
        return values, positions, notes, grid != wanted


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
    """The error message for a map under which source and target share nothing."""
    example = max(weight_map.rules, key=lambda rule: '{i}' in rule.source)
    return (
        f'The weight map {weight_map.name!r} matched nothing. It copies tensors such '
        f'as {example.source!r} to {example.target!r}; the source has '
        f'{list(source)[:4]}, the target {list(target)[:4]}.'
    )
