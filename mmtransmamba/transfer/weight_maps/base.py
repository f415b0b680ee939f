"""The classes from which weight maps are built."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mmtransmamba.registry import WEIGHT_MAPS

EXACT = 'exact'
"""Name of an axis along which source and target must have the same size."""

METHODS = ('width', 'pos_embed', 'inflate')


def without_backbone(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict without the prefix ``backbone.``"""
    return {name.removeprefix('backbone.'): tensor for name, tensor in state.items()}


@dataclass(frozen=True)
class Space:
    """A set of channels that several tensors of the source share.

    The channels of a space are selected once, so that values computed with channel c of
    one tensor meet channel c of the next.

    Attributes:
        name: Name of the space in rules.
        source: Template and dimension of the source's tensors along which the
            channels lie. The first one determines their number; the importance of a
            channel is summed over all.
        target: Template and dimension of one target tensor that has these channels.
            Their number may differ from layer to layer.
        per_layer: Whether every layer has its own channels; otherwise the space spans
            the model, as the residual stream does.
    """

    name: str
    source: tuple[tuple[str, int], ...]
    target: tuple[str, int]
    per_layer: bool = False


@dataclass(frozen=True)
class Rule:
    """Source of one target tensor, or of one per layer.

    Attributes:
        target: Name in the student; a layer's tensor starts with the map's
            ``target_layer``.
        source: Name in the source, ``{i}`` standing for the layer.
        axes: For each dimension of the source the :class:`Space` along it, a tuple
            of spaces that are concatenated there, or :data:`EXACT`.
        method: ``'width'``: by the run's width policy, see
            :class:`~mmtransmamba.transfer.subclone.SubcloneOptions`; ``'pos_embed'``:
            the same after the grid is resampled and the class token moved to its
            position, or dropped; ``'inflate'``: the same after an image convolution is
            inflated to video, if the target is one: its weights in the middle frame,
            zeros around them.
        optional: If sizes that must agree differ, leave the target to its fresh rule
            and report it. Otherwise that is an error.
        otherwise: Name in the source to use if it has no ``source``.
        follows: Another target; this one is only copied if that one was.
        unless: Another target tensor; this one is not copied if the model has it.
        fan_in: The dimension summed over in a linear map, for the rescaling of
            narrowed weights.
        scale: Factor on the copied values.
    """

    target: str
    source: str
    axes: tuple[str | tuple[str, ...], ...]
    method: str = 'width'
    optional: bool = False
    otherwise: str | None = None
    follows: str | None = None
    unless: str | None = None
    fan_in: int | None = None
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(
                f'Rule for {self.target}: method={self.method!r} must be one of '
                f'{METHODS}.'
            )


@dataclass(frozen=True)
class Fresh:
    """Initialisation of target tensors, or parts of them, that are not copied.

    Attributes:
        key: Name under which a config changes the rule.
        targets: Templates of the tensors.
        rule: Name and arguments of a function of
            :mod:`mmtransmamba.transfer.subclone.fresh`, as ``dict(type=..., ...)``.
    """

    key: str
    targets: tuple[str, ...]
    rule: Mapping[str, Any]


@dataclass(frozen=True)
class WeightMap:
    """Map from the weights of a source model to those of a target model.

    Target names are those of the bare backbone, plus ``head.*``; a ``backbone.``
    prefix in the target is ignored.

    Attributes:
        name: Name in the registry.
        target_layer: Prefix of the names of a target layer's tensors, such as
            ``'layers.{i}.'``, or ``'layers.{s}.blocks.{i}.'`` in a model with stages,
            whose layers are numbered through all of them.
        source_layer: The same in the source, with ``{i}`` only.
        rules: The first rule that applies to a target tensor is used.
        spaces: The spaces that the rules name.
        fresh: Rules for tensors that are not copied; a target tensor without a rule
            keeps the model's own initialisation.
        rename: Function that converts a source's names to those in the rules; what it
            returned may be given to it again.
        mixer_maps: Names of the maps by which a Mamba checkpoint can initialise the
            remaining tensors.
        cls_at: Position of the class token, if the target has one, in its position
            embedding, as a function of the number of patches.
    """

    name: str
    target_layer: str
    source_layer: str
    rules: tuple[Rule, ...]
    spaces: tuple[Space, ...]
    fresh: tuple[Fresh, ...] = ()
    rename: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = without_backbone
    mixer_maps: tuple[str, ...] = ()
    cls_at: Callable[[int], int] | None = None

    def __post_init__(self) -> None:
        known = {space.name for space in self.spaces} | {EXACT}
        for rule in self.rules:
            named = {
                name
                for axis in rule.axes
                for name in ((axis,) if isinstance(axis, str) else axis)
            }
            if not named <= known:
                raise ValueError(
                    f'{self.name}: the rule for {rule.target} names the spaces '
                    f'{sorted(named - known)}, which are not among {sorted(known)}.'
                )

    def target_layers(self, names: Iterable[str]) -> list[str]:
        """Name prefixes of the layers of a target, in order."""
        pattern = re.compile(
            re.sub(r'\\{\w\\}', r'(\\d+)', re.escape(self.target_layer))
        )
        found = {match[0]: match for name in names if (match := pattern.match(name))}
        return sorted(found, key=lambda layer: [int(n) for n in found[layer].groups()])

    def target_name(self, template: str, layer: str | None) -> str:
        """Name of a target tensor in the layer with the prefix ``layer``."""
        return template if layer is None else template.replace(self.target_layer, layer)

    def target_names(
        self, template: str, layers: Sequence[str]
    ) -> dict[str, int | None]:
        """Names that a template stands for, with the layer number of each."""
        if not template.startswith(self.target_layer):
            return {template: None}
        return {self.target_name(template, name): i for i, name in enumerate(layers)}

    def fits(self, source: Mapping[str, Tensor]) -> bool:
        """Whether a source has any tensor that a rule names, in its first layer."""
        return any(rule.source.replace('{i}', '0') in source for rule in self.rules)


def count_layers(names: Iterable[str], template: str) -> int:
    """One more than the highest layer number in names that start with ``template``."""
    pattern = re.compile(re.escape(template).replace(r'\{i\}', r'(\d+)'))
    numbers = [int(found[1]) for name in names if (found := pattern.match(name))]
    return max(numbers, default=-1) + 1


def size_of(state: Mapping[str, Tensor], where: tuple[str, int], layer: int) -> int:
    """Size along a dimension of the tensor that a template names in a layer.

    Raises:
        KeyError: The tensor does not exist.
    """
    template, dim = where
    return state[template.replace('{i}', str(layer))].shape[dim]


def get_weight_map(name: str) -> WeightMap:
    """The registered map with a name.

    Raises:
        ValueError: It does not exist; the message lists all names.
    """
    make = WEIGHT_MAPS.get(name)
    if make is None:
        raise ValueError(
            f'weight_map={name!r} must be one of {sorted(WEIGHT_MAPS.module_dict)}.'
        )
    return make()
