"""TinyLLaVA Factory's layout, and MaTVLM's, which contains Mamba-2 layers.

Published folders: ``tinyllava/TinyLLaVA-Phi-2-SigLIP-3.1B`` and
``hustvl/MaTVLM_0_25_Mamba2``. Source: TinyLLaVA/TinyLLaVA_Factory,
``tinyllava/model/{configuration,modeling}_tinyllava.py``, ``vision_tower/base.py`` and
``training_recipe/base.py``; hustvl/MaTVLM, ``mamba2/hybrid_mamba_layer.py``.

The head is the checkpoint's. MaTVLM's own inference code uses the head of the base
language model, so scores published with it may differ.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmtransmamba.models.folders.published.fields import (
    check_values,
    file_in,
    given,
    need,
    part_config,
)
from mmtransmamba.models.folders.published.llava_parts import (
    FEATURES,
    TOWERS,
    llava_entries,
    llava_model,
    special_token_ids,
    tower_name,
)
from mmtransmamba.models.folders.published.mamba_in_llama import (
    MAMBA_CONFIG,
    UNUSED,
    hybrid_text_config,
    mamba2_entries,
)
from mmtransmamba.models.folders.published.weight_table import Entry, TableSource
from mmtransmamba.models.folders.sources import JoinedSource, TensorSource, open_folder
from mmtransmamba.models.language import HYBRIDS

_TOWER = 'vision_tower._vision_tower.vision_model.'
_DECODER, _OWN_DECODER = 'language_model.model.', 'model.language_model.'
# Folders from before fine-tuning store the parts separately, without these prefixes.
_SUBFOLDERS = {
    'language_model': 'language_model.',
    'vision_tower': 'vision_tower._vision_tower.',
    'connector': 'connector.',
}


def open_tinyllava(folder: str | Path) -> TensorSource:
    """The tensors of a folder, or of its three subfolders, under their full names."""
    folder = Path(folder)
    if all((folder / name).is_dir() for name in _SUBFOLDERS):
        return JoinedSource(
            {at: open_folder(folder / name) for name, at in _SUBFOLDERS.items()}
        )
    return open_folder(folder)


def read_tinyllava(
    folder: str | Path, raw: dict[str, Any]
) -> tuple[type, Any, TensorSource]:
    """Class, config and tensors of a TinyLLaVA or MaTVLM folder.

    Args:
        folder: The folder.
        raw: Fields of its ``config.json``.

    Raises:
        CheckpointError: Tensors do not fit the config.
        ValueError: A field contradicts another, or cannot be read.
    """
    where, raw = file_in(folder), given(raw)
    text = part_config(
        f'{where}: text_config', need(where, raw, 'text_config'), tuple(HYBRIDS)
    )
    vision = part_config(
        f'{where}: vision_config', need(where, raw, 'vision_config'), TOWERS
    )
    check_values(
        where,
        raw,
        dict(
            connector_type='mlp2x_gelu',
            hidden_size=text.hidden_size,
            vision_hidden_size=vision.hidden_size,
            vocab_size=text.vocab_size,
            vision_model_name_or_path2='',
            vision_feature_select_strategy=tuple(FEATURES),
            image_aspect_ratio=('square', 'pad'),
            image_token_index=-200,
        ),
    )
    rows, source = text.vocab_size, open_tinyllava(folder)
    if (Path(folder) / MAMBA_CONFIG).is_file():
        text = hybrid_text_config(folder, text, 'published:MaTVLM')
    if vision.model_type == 'siglip_vision_model':
        vision.vision_use_head = f'{_TOWER}head.probe' in source
    model_class, config = llava_model(
        text,
        vision,
        special_token_ids(folder, rows),
        raw.get('vision_feature_layer', -2),
        FEATURES[raw.get('vision_feature_select_strategy', 'patch')],
        head_bias=text.model_type.endswith('phi'),
    )
    special = [
        entry
        for i in getattr(text, 'mamba_layers', ())
        for entry in mamba2_entries(
            f'{_DECODER}layers.{i}.mamba.', f'{_OWN_DECODER}layers.{i}.self_attn.', text
        )
    ]
    entries = llava_entries(model_class, config, rows, published_name, special)
    if text.tie_word_embeddings:
        head = 'language_model.lm_head.weight'
        entries.append(Entry(head, (rows, text.hidden_size), {}))
    return model_class, config, TableSource(source, entries, folder, UNUSED)


def published_name(name: str) -> str:
    """TinyLLaVA's name for a tensor of transformers' LLaVA."""
    tower = tower_name(name, _TOWER)
    if tower is not None:
        return tower
    if name.startswith('lm_head.'):
        return f'language_model.{name}'
    if name.startswith(_OWN_DECODER):
        return _DECODER + name.removeprefix(_OWN_DECODER)
    part = name.removeprefix('model.multi_modal_projector.')
    return 'connector._connector.' + part.replace('linear_1', '0').replace(
        'linear_2', '2'
    )
