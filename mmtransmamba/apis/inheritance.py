"""Transfer of weights from one model to another, without a Runner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from mmtransmamba.registry import WEIGHT_MAPS
from mmtransmamba.transfer.subclone import (
    SubcloneOptions,
    SubcloneReport,
    read_mixers,
    read_source,
    read_teacher,
    subclone_into,
    with_target_grid,
)
from mmtransmamba.transfer.weight_maps import get_weight_map


def inherit(
    student: nn.Module,
    teacher: nn.Module | str | Path,
    weight_map: str | None = None,
    mamba_checkpoint: str | Path | None = None,
    **options: Any,
) -> SubcloneReport:
    """Start a student from a teacher's weights (TransMamba, Section 3.2).

    Args:
        student: A backbone of this package, or a classifier with one; changed in
            place.
        teacher: A ViT or DeiT of transformers, timm or mmpretrain, a teacher of this
            package, or a checkpoint file.
        weight_map: Name in :data:`mmtransmamba.registry.WEIGHT_MAPS`; by default the
            one from a ViT to this kind of student.
        mamba_checkpoint: File of a Mamba model that initialises the mixer parameters
            without a counterpart in the teacher.
        **options: See :class:`~mmtransmamba.transfer.subclone.SubcloneOptions`, such
            as ``layers='uniform'`` or ``width='importance'``.

    Returns:
        A printable report on every parameter.

    Raises:
        FileNotFoundError: A checkpoint does not exist.
        CheckpointError: A checkpoint cannot be used.
        TypeError: An option does not exist.
        ValueError: No map exists for this student, the models do not fit it, or the
            teacher's ``class_order`` is that of names.
    """
    weight_map = get_weight_map(weight_map or _default_map(student))
    options = with_target_grid(SubcloneOptions(**options), student)
    if isinstance(teacher, nn.Module):
        source, options = read_teacher(weight_map, teacher, options)
    else:
        source = read_source(weight_map, teacher)
    sources = [source]
    if mamba_checkpoint is not None:
        sources.append(read_mixers(weight_map, mamba_checkpoint))
    return subclone_into(student, sources, options)


def _default_map(student: nn.Module) -> str:
    kind = type(getattr(student, 'backbone', student)).__name__
    name = f'vit_to_{kind.lower()}'
    if WEIGHT_MAPS.get(name) is None:
        raise ValueError(
            f'no weight map leads from a ViT to a {kind}; give weight_map, one of '
            f'{", ".join(sorted(WEIGHT_MAPS.module_dict))}'
        )
    return name
