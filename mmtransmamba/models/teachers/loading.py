"""Loading a checkpoint file from any library into a teacher."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path

from mmengine.logging import print_log
from torch import nn

from mmtransmamba.models.checkpoint import (
    CheckpointError,
    load_pretrained,
    read_state_dict,
)
from mmtransmamba.models.teachers.vit_names import from_canonical, to_canonical
from mmtransmamba.utils import safe_load

# Recomputed by the model; files of older Swin implementations contain them.
_DERIVED = re.compile(r'(?:relative_position_index|relative_coords_table|attn_mask)$')

RANDOM = 'random'
"""In the place of a checkpoint: the teacher keeps random weights."""


def load_teacher_checkpoint(model: nn.Module, checkpoint: str | Path) -> None:
    """Load a checkpoint file strictly, and log the loaded tensors.

    Besides the prefixes that :func:`mmtransmamba.models.load_pretrained` removes, a
    missing ``backbone.`` is added, and a plain ViT saved by timm, mmpretrain or
    transformers is renamed for the library of ``model``. A backbone is read out of the
    file of a whole model (classifier, segmentor, detector); the log names the parts
    that were not needed.

    Args:
        model: The library's model.
        checkpoint: File with a state dict, see
            :func:`mmtransmamba.models.read_state_dict`.

    Raises:
        FileNotFoundError: The file does not exist.
        CheckpointError: The file cannot be read, or does not fit the model; the message
            names missing, unexpected and mismatched tensors.
    """
    state = read_state_dict(checkpoint)
    own = model.state_dict()
    state = {k: v for k, v in state.items() if k in own or not _DERIVED.search(k)}

    candidates = [state]
    candidates.append({f'backbone.{key}': value for key, value in state.items()})
    backbone = {
        key.removeprefix('backbone.'): value
        for key, value in state.items()
        if key.startswith('backbone.')
    }
    candidates.append(backbone)
    try:
        candidates.append(from_canonical(to_canonical(state), own))
    except ValueError:
        pass  # one of the two is not a plain ViT, so its own names must match
    best = max(candidates, key=lambda names: sum(key in own for key in names))
    try:
        report = load_pretrained(model, best)
    except CheckpointError as error:
        raise CheckpointError(f'checkpoint={str(checkpoint)!r}: {error}') from error
    others = {key.split('.')[0] for key in state} - {'backbone'}
    left = f' (without its {", ".join(sorted(others))})' if best is backbone else ''
    print_log(
        f'Teacher {type(model).__name__} from {checkpoint}{left}: {report}', 'current'
    )


def class_names_of(checkpoint: str | Path, count: int | None) -> list[str] | None:
    """The class names of the data set that a checkpoint was trained on.

    mmengine's runners store them in ``meta['dataset_meta']['classes']``.

    Args:
        checkpoint: File of a checkpoint.
        count: Number of classes of the model, None if it has no head.

    Returns:
        The names; None if the file has none, or another number of them.
    """
    path = Path(checkpoint)
    if path.suffix == '.safetensors' or not path.is_file():
        return None
    content = safe_load.load_file(path, foreign='inert')
    for key in ('meta', 'dataset_meta', 'classes'):
        content = content.get(key) if isinstance(content, Mapping) else None
    if not isinstance(content, (list, tuple)) or len(content) != count:
        return None
    return [str(name) for name in content]


def accept_random(teacher: str, checkpoint: str | Path | None) -> None:
    """Refuse a teacher without weights, unless random ones are requested.

    Args:
        teacher: The teacher's class, for the message.
        checkpoint: :data:`RANDOM`, or None.

    Raises:
        ValueError: The checkpoint is None.
    """
    if checkpoint != RANDOM:
        raise ValueError(
            f'{teacher}: there is neither a checkpoint nor pre-trained weights. Give '
            f'checkpoint=FILE, or checkpoint={RANDOM!r} for a teacher that knows '
            'nothing.'
        )
    print_log(f'{teacher} is random.', 'current', level=logging.WARNING)
