"""The vision tower of a LLaVA in the original layout, in its folder or elsewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mmtransmamba.models.folders.canonical_names import RenamedSource
from mmtransmamba.models.folders.config import read_model_config
from mmtransmamba.models.folders.published.fields import file_in, need, part_config
from mmtransmamba.models.folders.published.llava_parts import TOWERS
from mmtransmamba.models.folders.sources import TensorSource, open_folder

TOWER = 'model.vision_tower.vision_tower.vision_model.'
"""Prefixes of its tensors' published names."""
_TEXT_HALF = re.compile(
    r'^text_model\.|^(text|visual)_projection\.|^logit_(scale|bias)$|position_ids$'
)
_CLIP_L = dict(
    model_type='clip_vision_model',
    hidden_size=1024,
    intermediate_size=4096,
    num_hidden_layers=24,
    num_attention_heads=16,
    patch_size=14,
    projection_dim=768,
)
# For folders that contain the tower's tensors, but not its config.
_KNOWN_TOWERS = {
    'openai/clip-vit-large-patch14': _CLIP_L | dict(image_size=224),
    'openai/clip-vit-large-patch14-336': _CLIP_L | dict(image_size=336),
    'google/siglip-so400m-patch14-384': dict(
        model_type='siglip_vision_model',
        hidden_size=1152,
        intermediate_size=4304,
        num_hidden_layers=27,
        num_attention_heads=16,
        image_size=384,
        patch_size=14,
    ),
}


def tower_config(where: str, name: str, folder: Path | None, inside: bool) -> Any:
    """The config of the vision tower.

    Args:
        where: The file that names it, for messages.
        name: Its folder or its name on the hub.
        folder: Its folder, None if it is not on this machine.
        inside: Whether its tensors are in the published folder.
    """
    if folder is None and not inside:
        raise FileNotFoundError(
            f'{where}: the weights have no vision tower, and mm_vision_tower={name!r} '
            'is neither a folder nor in the local cache of the hub: download it, or '
            'set mm_vision_tower to its folder.'
        )
    if folder is None:
        if name not in _KNOWN_TOWERS:
            raise FileNotFoundError(
                f'{where}: mm_vision_tower={name!r} is not a folder here; without its '
                f'config only {", ".join(_KNOWN_TOWERS)} can be read.'
            )
        return part_config(where, _KNOWN_TOWERS[name], TOWERS)
    fields, place = read_model_config(folder), file_in(folder)
    if fields.get('model_type') in ('clip', 'siglip'):
        kind = f'{fields["model_type"]}_vision_model'
        fields = need(place, fields, 'vision_config') | {'model_type': kind}
    return part_config(place, fields, TOWERS)


def find_tower(folder: str | Path, name: str) -> Path | None:
    """The folder of a vision tower on this machine, by its path or name on the hub."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    for path in (Path(name), Path(folder) / name):
        if path.is_dir():
            return path
    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (OSError, ValueError, HFValidationError):
        return None


def tower_weights(folder: Path) -> TensorSource:
    """The tensors of a vision tower's folder, without those of a text model."""
    source = open_folder(folder)
    names = {
        name.removeprefix('vision_model.'): name
        for name in source
        if not _TEXT_HALF.search(name)
    }
    return RenamedSource(source, names)


def as_siglip(vision: Any, source: TensorSource) -> tuple[int, str]:
    """Layer and strategy of a SigLIP, whose config is changed.

    The published code removes its last layer and its head, and takes all tokens of what
    is left, whatever ``mm_vision_select_layer`` and ``mm_vision_select_feature`` are.
    """
    vision.vision_use_head = f'{TOWER}head.probe' in source
    depth = vision.num_hidden_layers
    if not any(n.startswith(f'{TOWER}encoder.layers.{depth - 1}.') for n in source):
        vision.num_hidden_layers = depth - 1
        return -1, 'full'
    return -2, 'full'
