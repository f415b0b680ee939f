"""Reading the source weights of an inheritance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import nn

from mmtransmamba.models.checkpoint import CheckpointError, read_state_dict
from mmtransmamba.models.fit import check_weights
from mmtransmamba.models.teachers import BaseTeacher
from mmtransmamba.transfer.subclone.donor import Source
from mmtransmamba.transfer.subclone.options import SubcloneOptions
from mmtransmamba.transfer.weight_maps import WeightMap, get_weight_map


def read_source(weight_map: WeightMap, checkpoint: str | Path) -> Source:
    """A checkpoint file under the names that a weight map uses.

    Raises:
        FileNotFoundError: The file does not exist.
        CheckpointError: The file cannot be read, contains another kind of model, or
            weights that are integers, NaN or infinite.
    """
    state = read_state_dict(checkpoint)
    check_weights(state, checkpoint)
    try:
        return weight_map, weight_map.rename(state)
    except ValueError as error:
        raise CheckpointError(
            f'{checkpoint} does not suit the weight map {weight_map.name!r}: {error}'
        ) from error


def read_teacher(
    weight_map: WeightMap, teacher: nn.Module, options: SubcloneOptions
) -> tuple[Source, SubcloneOptions]:
    """A model's weights under the names that a weight map uses, on the CPU.

    Args:
        weight_map: Map of the inheritance.
        teacher: A teacher of this package, whose head is read in the order of its
            ``class_order``, or another model.
        options: Options of the inheritance.

    Returns:
        The source, and the options with the teacher's grid if they name none.

    Raises:
        ValueError: The model does not suit the map, or the order of its classes is not
            known yet.
    """
    known = isinstance(teacher, BaseTeacher)
    state = weight_map.rename((teacher.model if known else teacher).state_dict())
    if known:
        state = teacher.in_class_order(state)
        if options.source_grid is None:
            options = replace(options, source_grid=teacher.native_grid)
    return (weight_map, {name: t.cpu() for name, t in state.items()}), options


def read_mixers(weight_map: WeightMap, checkpoint: str | Path) -> Source:
    """A Mamba checkpoint, with the map of ``weight_map.mixer_maps`` that fits it.

    Raises:
        FileNotFoundError: The file does not exist.
        CheckpointError: The file cannot be read, or no map fits.
    """
    state = read_state_dict(checkpoint)
    check_weights(state, checkpoint)
    for name in weight_map.mixer_maps:
        mixers = get_weight_map(name)
        renamed = mixers.rename(state)
        if mixers.fits(renamed):
            return mixers, renamed
    raise CheckpointError(
        f'mamba_checkpoint={str(checkpoint)!r} holds no mixers that '
        f'{weight_map.name!r} can use (through {list(weight_map.mixer_maps)}); it has '
        f'{list(state)[:4]}.'
    )
