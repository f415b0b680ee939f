"""LLaVA's original layout: v1.5, v1.6 without its tiles, and the Llama-3 variants.

Published folders: ``liuhaotian/llava-v1.5-7b`` and ``-13b``, and those written by forks
of its code (including LLaVA-pp). Source: haotian-liu/LLaVA,
``llava/model/llava_arch.py`` and ``builder.py``; transformers,
``convert_llava_weights_to_hf.py``.

transformers also uses ``model_type: llava``; here, ``mm_vision_tower`` is set as well.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mmtransmamba.models.folders.canonical_names import RenamedSource
from mmtransmamba.models.folders.config import read_model_config
from mmtransmamba.models.folders.published.fields import (
    check_values,
    file_in,
    need,
    part_config,
)
from mmtransmamba.models.folders.published.llava_parts import (
    FEATURES,
    TOWERS,
    image_token_id,
    llava_entries,
    llava_model,
    tower_name,
)
from mmtransmamba.models.folders.published.mamba_in_llama import UNUSED
from mmtransmamba.models.folders.published.weight_table import Entry, TableSource
from mmtransmamba.models.folders.sources import JoinedSource, TensorSource, open_folder

_TOWER = 'model.vision_tower.vision_tower.vision_model.'
_PROJECTOR, _DECODER = 'model.multi_modal_projector.', 'model.language_model.'
_OF_TRAINING = ('use_mm_', 'tune_mm_', 'freeze_mm_', 'pretrain_mm_', 'unfreeze_mm_')
# The family of the decoder by the published model_type.
_FAMILIES = {
    'llava': 'llama',
    'llava_llama': 'llama',
    'llava_mistral': 'mistral',
    'llava_qwen': 'qwen2',
}
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
_UNUSED = rf'{UNUSED}|vision_resampler|embeddings\.position_ids$'


def is_llava(raw: dict[str, Any]) -> bool:
    """Whether a ``config.json`` is that of LLaVA's original code."""
    kind = str(raw.get('model_type'))
    return kind.startswith('llava') and 'mm_vision_tower' in raw


def read_llava(
    folder: str | Path, raw: dict[str, Any]
) -> tuple[type, Any, TensorSource]:
    """Class, config and tensors of a folder in LLaVA's original layout.

    Args:
        folder: The folder.
        raw: Fields of its ``config.json``, including the decoder's.

    Raises:
        CheckpointError: Tensors do not fit the config.
        FileNotFoundError: The vision tower is neither in the folder nor in the folder
            named in ``mm_vision_tower``.
        ValueError: A field contradicts another, or cannot be read.
    """
    where = file_in(folder)
    kind = raw['model_type']
    check_values(where, raw, dict(model_type=tuple(_FAMILIES)))
    check_values(
        where,
        raw,
        dict(
            mm_projector_type='mlp2x_gelu',
            mm_use_im_start_end=False,
            mm_use_im_patch_token=False,
            mm_vision_select_feature=tuple(FEATURES),
            image_aspect_ratio=('pad', 'square', None),
            mm_patch_merge_type=('flat', None),
            mm_resampler_type=(None,),
        ),
    )
    need(where, raw, 'mm_projector_type', str)
    layer = need(where, raw, 'mm_vision_select_layer', int)
    text = part_config(
        where,
        _text_fields(raw) | {'model_type': _FAMILIES[kind]},
        tuple(_FAMILIES.values()),
    )
    rows, source = text.vocab_size, open_folder(folder)
    inside = any(name.startswith(_TOWER) for name in source)
    name = need(where, raw, 'mm_vision_tower', str)
    tower = _find_tower(folder, name)
    vision = _tower_config(where, name, tower, inside)
    check_values(where, raw, dict(mm_hidden_size=vision.hidden_size))
    if not inside:
        source = JoinedSource({'': source, _TOWER: _tower_weights(tower)})
    if vision.model_type == 'siglip_vision_model':
        vision.vision_use_head = f'{_TOWER}head.probe' in source
    model_class, config = llava_model(
        text,
        vision,
        image_token_id(folder, rows),
        layer,
        FEATURES[raw.get('mm_vision_select_feature', 'patch')],
        head_bias=False,
    )
    entries = llava_entries(model_class, config, rows, published_name)
    if text.tie_word_embeddings:
        entries.append(Entry('lm_head.weight', (rows, text.hidden_size), {}))
    return model_class, config, TableSource(source, entries, folder, _UNUSED)


def _text_fields(raw: dict[str, Any]) -> dict[str, Any]:
    """The decoder's fields in a config."""
    return {
        name: value
        for name, value in raw.items()
        if not name.startswith(('mm_', 'image_', *_OF_TRAINING))
    }


def published_name(name: str) -> str:
    """LLaVA's name for a tensor of transformers' LLaVA."""
    tower = tower_name(name, _TOWER)
    if tower is not None:
        return tower
    if name.startswith(_PROJECTOR):
        part = name.removeprefix(_PROJECTOR)
        part = part.replace('linear_1', '0').replace('linear_2', '2')
        return f'model.mm_projector.{part}'
    if name.startswith(_DECODER):
        return 'model.' + name.removeprefix(_DECODER)
    return name


def _tower_config(where: str, name: str, folder: Path | None, inside: bool) -> Any:
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


def _find_tower(folder: str | Path, name: str) -> Path | None:
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


def _tower_weights(folder: Path) -> TensorSource:
    """The tensors of a vision tower's folder, without those of a text model."""
    source = open_folder(folder)
    names = {
        name.removeprefix('vision_model.'): name
        for name in source
        if not _TEXT_HALF.search(name)
    }
    return RenamedSource(source, names)
