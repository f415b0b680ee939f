"""The options that a weight map leaves open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mmtransmamba.transfer.subclone.channels import WIDTHS
from mmtransmamba.transfer.subclone.pos_embed import INTERPOLATIONS

SKIP = 'skip'


@dataclass(frozen=True)
class SubcloneOptions:
    """Options of a weight transfer that the weight map does not determine.

    Attributes:
        layers: See :func:`~mmtransmamba.transfer.subclone.layers.match_depth`. A
            list applies to the first source; further ones then use ``'first_n'``.
        width: For tensors whose shapes differ. ``'whole'``: an error; ``'block'``:
            the top-left block that both have (TransMamba, Section 3.2);
            ``'uniform'``: evenly spaced channels of the wider one;
            ``'importance'``: the source's most important channels, see
            :func:`~mmtransmamba.transfer.subclone.channels.channel_importance`.
        importance: Importance ``[channels]`` of the channels of a space of the first
            source's map, by the space's name; by default computed from the weights.
        rules: Exceptions to ``width``: patterns of target names (``fnmatch``, without
            ``backbone.``) with one of its values or ``'skip'``.
        rescale: Multiply the weights of a linear map that reads only k of the
            source's n inputs by ``sqrt(n / k)``, which preserves the variance of its
            outputs; None does so for tensors selected by importance.
        fresh: Changes to the map's fresh rules, see
            :func:`~mmtransmamba.transfer.subclone.fresh.resolve_rule`.
        interpolation: ``'bicubic'`` or ``'bilinear'``, for position embeddings.
        source_grid: Rows and columns of the source's position embedding; a square
            by default.
        target_grid: Likewise for the target.
        seed: Seed of the fresh parameters. Every tensor has its own generator, so that
            an option does not change the numbers drawn for other tensors.

    Raises:
        ValueError: An option does not have an accepted value.
    """

    layers: str | Sequence[int] = 'first_n'
    width: str = 'block'
    importance: Mapping[str, Tensor] | None = None
    rules: Mapping[str, str] | None = None
    rescale: bool | None = None
    fresh: Mapping[str, Any] | None = None
    interpolation: str = 'bicubic'
    source_grid: tuple[int, int] | None = None
    target_grid: tuple[int, int] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.width not in WIDTHS:
            raise ValueError(f'width={self.width!r} must be one of {WIDTHS}.')
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(
                f'interpolation={self.interpolation!r} must be one of {INTERPOLATIONS}.'
            )
        for pattern, how in (self.rules or {}).items():
            if how not in (*WIDTHS, SKIP):
                raise ValueError(
                    f'rules[{pattern!r}]={how!r} must be one of {(*WIDTHS, SKIP)}.'
                )
        used = {self.width, *(self.rules or {}).values()}
        if self.importance is not None and 'importance' not in used:
            raise ValueError(
                "importance goes with width='importance', or with a rule that says so, "
                f'not width={self.width!r} alone.'
            )
