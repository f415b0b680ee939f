"""Reading the source weights of an inheritance."""

from __future__ import annotations

from pathlib import Path

from mmtransmamba.models.checkpoint import CheckpointError, read_state_dict
from mmtransmamba.models.fit import check_weights
from mmtransmamba.transfer.subclone.donor import Source
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
