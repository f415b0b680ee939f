"""Selective subcloning: weights of one model into another, on state dicts alone.

TransMamba, Section 3.2, after Samragh et al., "Weight subcloning: direct
initialization of transformers using larger pretrained ones", 2023.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from mmtransmamba.transfer.subclone.donor import (
    Donor,
    Source,
    Taken,
    nothing_matched,
)
from mmtransmamba.transfer.subclone.fresh import describe_rule, draw, resolve_rule
from mmtransmamba.transfer.subclone.options import SubcloneOptions
from mmtransmamba.transfer.subclone.report import (
    KEPT,
    Entry,
    SubcloneReport,
    Unused,
)
from mmtransmamba.transfer.weight_maps.base import WeightMap

BACKBONE = 'backbone.'


def subclone(
    target: Mapping[str, Tensor],
    sources: Sequence[Source],
    options: SubcloneOptions | None = None,
) -> tuple[dict[str, Tensor], SubcloneReport]:
    """Compute a model's initial weights from those of pre-trained models.

    Args:
        target: The target's initialised parameters, with or without a ``backbone.``
            prefix. They are not changed.
        sources: Maps and state dicts, under any names that the map's ``rename`` reads.
            A target tensor comes from the first source that has values for it.
            The first source's map defines how the remaining ones are initialised.
        options: See :class:`SubcloneOptions`.

    Returns:
        The new parameters, with the names, order, shapes, dtypes and devices of
        ``target``, and the report on each of them.

    Raises:
        ValueError: A map does not read its source, nothing of a source is used, shapes
            differ where they must not, or an option does not fit the models.
    """
    options = options or SubcloneOptions()
    names = {key.removeprefix(BACKBONE): key for key in target}
    local = {name: target[key] for name, key in names.items()}
    _check_patterns(options, local)

    donors = []
    for number, (wmap, state) in enumerate(sources):
        own = options
        if number:  # options for the first source's layers and channels do not apply
            own = replace(own, importance=None)
            if not isinstance(own.layers, str):
                own = replace(own, layers='first_n')
        donors.append(Donor(local, _renamed(wmap, state), wmap, own))
    weight_map = sources[0][0]
    fresh = _fresh_rules(weight_map, options, local)
    report = SubcloneReport(
        weight_map=' + '.join(wmap.name for wmap, _ in sources),
        layers=donors[0].layer_of,
        width=options.width,
        seed=options.seed,
    )
    new = {}
    for name, key in names.items():
        taken = _take_first(donors, name, local[name])
        taken.entry.target = key
        rule = fresh.get(name)
        new[key] = _finish(taken, local[name], rule, options.seed, name)
        report.entries.append(taken.entry)
    for donor in donors:
        if not donor.used:
            raise ValueError(nothing_matched(donor.map, donor.source, local))
        report.unused += [
            Unused(name, tuple(tensor.shape))
            for name, tensor in donor.source.items()
            if name not in donor.used
        ]
    return new, report


def _renamed(weight_map: WeightMap, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    try:
        return weight_map.rename(state)
    except ValueError as error:
        raise ValueError(f'{weight_map.name!r} does not read this: {error}') from error


def _take_first(donors: Sequence[Donor], name: str, tensor: Tensor) -> Taken:
    """The first donor's values, or the first reason why there are none."""
    reason = None
    for donor in donors:
        offer = donor.take(name)
        if offer is not None and offer.values is not None:
            return offer
        reason = reason or offer
    return reason or Taken(Entry(name, tuple(tensor.shape), KEPT))


def _finish(
    taken: Taken, tensor: Tensor, rule: dict[str, Any] | None, seed: int, name: str
) -> Tensor:
    """The tensor after its fresh rule, if any, with the inherited values in it."""
    entry = taken.entry
    if entry.inherited < entry.size:
        entry.rest = KEPT if rule is None else describe_rule(rule, entry.shape)
        if taken.values is None:
            entry.action = KEPT if rule is None else 'fresh'
    if rule is not None and entry.inherited < entry.size:
        generator = torch.Generator().manual_seed(
            (seed + zlib.crc32(name.encode())) % 2**63
        )
        new = draw(rule, tensor.shape, generator).to(tensor.device, tensor.dtype)
    else:
        new = tensor.detach().clone()
    if taken.values is not None:
        last = new.ndim - 1
        positions = tuple(
            into.to(new.device).view(-1, *[1] * (last - dim))
            for dim, into in enumerate(taken.into)
        )
        new[positions] = taken.values.to(new.device, new.dtype)
    return new


def _fresh_rules(
    weight_map: WeightMap, options: SubcloneOptions, target: Mapping[str, Tensor]
) -> dict[str, dict[str, Any]]:
    """The fresh rule of each target tensor that has one."""
    changes = dict(options.fresh or {})
    known = [fresh.key for fresh in weight_map.fresh]
    unknown = set(changes) - set(known)
    if unknown:
        raise ValueError(
            f'fresh={sorted(unknown)}: {weight_map.name} has fresh rules for {known}.'
        )
    layers = weight_map.target_layers(target)
    rules = {}
    for fresh in weight_map.fresh:
        rule = resolve_rule(fresh.key, fresh.rule, changes.get(fresh.key))
        if rule is None:
            continue
        for template in fresh.targets:
            rules.update(dict.fromkeys(weight_map.target_names(template, layers), rule))
    return rules


def _check_patterns(options: SubcloneOptions, target: Mapping[str, Tensor]) -> None:
    for pattern in options.rules or ():
        if not any(fnmatchcase(name, pattern) for name in target):
            raise ValueError(
                f'rules[{pattern!r}] matches no parameter of the target, such as '
                f'{list(target)[:3]}.'
            )
