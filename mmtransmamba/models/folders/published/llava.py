"""LLaVA's original layout: v1.5, v1.6, OneVision, and the Llama-3 variants.

Published folders: ``liuhaotian/llava-v1.5-7b`` and ``-13b``, ``llava-v1.6-*``,
``lmms-lab/llama3-llava-next-8b``, ``lmms-lab/llava-onevision-qwen2-*``, and those
written by forks of the code (including LLaVA-pp). Source: haotian-liu/LLaVA and
LLaVA-VL/LLaVA-NeXT, ``llava/model/llava_arch.py``, ``builder.py`` and
``multimodal_encoder/siglip_encoder.py``; transformers,
``convert_llava_weights_to_hf.py``.

transformers also uses ``model_type: llava``; here, ``mm_vision_tower`` is set as well.
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
    llava_entries,
    llava_model,
    special_token_ids,
    tower_name,
)
from mmtransmamba.models.folders.published.llava_tiles import read_grids, read_tiles
from mmtransmamba.models.folders.published.llava_tower import (
    TOWER,
    as_siglip,
    find_tower,
    tower_config,
    tower_weights,
)
from mmtransmamba.models.folders.published.mamba_in_llama import UNUSED
from mmtransmamba.models.folders.published.weight_table import Entry, TableSource
from mmtransmamba.models.folders.sources import JoinedSource, TensorSource, open_folder

_PROJECTOR, _DECODER = 'model.multi_modal_projector.', 'model.language_model.'
_OF_TRAINING = ('use_mm_', 'tune_mm_', 'freeze_mm_', 'pretrain_mm_', 'unfreeze_mm_')
# The family of the decoder by the published model_type. Older code writes 'llava' for
# all families, or the decoder's own type; the class then decides.
_FAMILIES = {'llava_llama': 'llama', 'llava_mistral': 'mistral', 'llava_qwen': 'qwen2'}
_CLASSES = {
    'LlavaLlamaForCausalLM': 'llama',
    'LlavaMistralForCausalLM': 'mistral',
    'LlavaQwenForCausalLM': 'qwen2',
}
_UNUSED = rf'{UNUSED}|vision_resampler|embeddings\.position_ids$'


def is_llava(raw: dict[str, Any]) -> bool:
    """Whether a ``config.json`` is that of LLaVA's original code."""
    names = (str(raw.get('model_type')), _class_name(raw).lower())
    return 'mm_vision_tower' in raw and any(n.startswith('llava') for n in names)


def _class_name(raw: dict[str, Any]) -> str:
    names = raw.get('architectures')
    return str(names[0] if isinstance(names, list) and names else names)


def llava_family(where: str, raw: dict[str, Any]) -> str:
    """The family of the decoder: ``'llama'``, ``'mistral'`` or ``'qwen2'``.

    Args:
        where: The file, for the message.
        raw: Its fields, see :func:`is_llava`.

    Raises:
        ValueError: It is another family.
    """
    kind, name = raw['model_type'], _class_name(raw)
    if kind in _FAMILIES:
        return _FAMILIES[kind]
    own = kind in _FAMILIES.values()
    if kind != 'llava' and not own:
        raise ValueError(
            f'{where}: model_type={kind!r} cannot be read; it must be '
            f'{" or ".join(map(repr, ("llava", *_FAMILIES)))}.'
        )
    check_values(
        where,
        dict(architectures=name) if name.lower().startswith('llava') else {},
        dict(architectures=tuple(_CLASSES)),
    )
    family = _CLASSES.get(name, 'llama')
    if own:
        check_values(where, raw, dict(model_type=family))
    return family


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
    family = llava_family(where, raw)
    check_values(
        where,
        given(raw),
        dict(
            mm_projector_type='mlp2x_gelu',
            mm_use_im_start_end=False,
            mm_use_im_patch_token=False,
            mm_vision_select_feature=tuple(FEATURES),
            mm_patch_merge_type=('flat', 'spatial_unpad'),
            s2=False,
        ),
    )
    check_values(where, raw, dict(mm_resampler_type=(None,)))
    tiles = read_tiles(where, raw)
    need(where, raw, 'mm_projector_type', str)
    layer = need(where, raw, 'mm_vision_select_layer', int)
    text = part_config(
        where,
        _text_fields(raw) | {'model_type': family},
        tuple(_FAMILIES.values()),
    )
    rows, source = text.vocab_size, open_folder(folder)
    inside = any(name.startswith(TOWER) for name in source)
    name = need(where, raw, 'mm_vision_tower', str)
    tower = find_tower(folder, name)
    vision = tower_config(where, name, tower, inside)
    check_values(where, given(raw), dict(mm_hidden_size=vision.hidden_size))
    if not inside:
        source = JoinedSource({'': source, TOWER: tower_weights(tower)})
    strategy = FEATURES[raw.get('mm_vision_select_feature') or 'patch']
    if vision.model_type == 'siglip_vision_model':
        layer, strategy = as_siglip(vision, source)
    model_class, config = llava_model(
        text,
        vision,
        special_token_ids(folder, rows),
        layer,
        strategy,
        head_bias=False,
        grids=read_grids(where, raw, vision.image_size),
        most_tiles=tiles or None,
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
    tower = tower_name(name, TOWER)
    if tower is not None:
        return tower
    if name.startswith(_PROJECTOR):
        part = name.removeprefix(_PROJECTOR)
        part = part.replace('linear_1', '0').replace('linear_2', '2')
        return f'model.mm_projector.{part}'
    if name.startswith(_DECODER):
        return 'model.' + name.removeprefix(_DECODER)
    return name
