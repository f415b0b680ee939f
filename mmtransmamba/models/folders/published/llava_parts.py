"""Parts shared by published models of LLaVA's kind: tower, projector, decoder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
)

from mmtransmamba.models.folders.published.weight_table import (
    Entry,
    entries_of,
    padded_rows,
)
from mmtransmamba.models.multimodal.llava import (
    HybridLlavaConfig,
    HybridLlavaForConditionalGeneration,
)
from mmtransmamba.utils.processors import load_tokenizer

IMAGE_TOKEN, VIDEO_TOKEN = '<image>', '<video>'
TOWERS = ('clip_vision_model', 'siglip_vision_model')
FEATURES = {'patch': 'default', 'cls_patch': 'full'}
"""Which tokens of the tower are taken, under the published names and ours.

``'patch'`` cuts the first token, whatever it is: CLIP's class token, but a SigLIP's
top left patch. The published models were trained so.
"""
_EMBEDDING, _HEAD = 'model.language_model.embed_tokens.weight', 'lm_head.'


def special_token_ids(folder: str | Path, vocab_size: int) -> tuple[int, int]:
    """Ids of the image token and the video token here.

    Published prompts use a negative number. Here they are the tokenizer's ``<image>``
    and ``<video>``, or the first ids that the tokenizer does not use; without a
    tokenizer in the folder, the first ids after the embeddings.
    """
    if not any(Path(folder).glob('tokenizer*')):
        return vocab_size, vocab_size + 1
    tokenizer = load_tokenizer(folder)
    known, free, ids = tokenizer.get_vocab(), len(tokenizer), []
    for token in (IMAGE_TOKEN, VIDEO_TOKEN):
        ids.append(known.get(token, free))
        free += token not in known
    return ids[0], ids[1]


def llava_model(
    text: Any,
    vision: Any,
    tokens: tuple[int, int],
    layer: int,
    strategy: str,
    head_bias: bool,
    grids: list[list[int]] | None = None,
    most_tiles: int | None = None,
) -> tuple[type, Any]:
    """Class and config of a LLaVA in this package.

    Args:
        text, vision: Configs of decoder and tower. The decoder's vocabulary is
            extended if it lacks a token.
        tokens: Ids of the image token and, for LLaVA-OneVision, the video token.
        layer: Layer of the tower.
        strategy: ``'default'`` or ``'full'``.
        head_bias: Whether the head has a bias.
        grids: Heights and widths of LLaVA-NeXT's tilings; None for images in one piece.
        most_tiles: Number of tiles whose tokens an image has at most, as in
            LLaVA-OneVision; None for no limit.

    Raises:
        ValueError: The tower does not have the layer.
    """
    depth = vision.num_hidden_layers
    if type(layer) is not int or not -depth - 1 <= layer <= depth:
        raise ValueError(
            f'The layer {layer!r} of the vision tower cannot be read; it must lie in '
            f'[{-depth - 1}, {depth}].'
        )
    image_token, video_token = tokens
    text.vocab_size = max(text.vocab_size, image_token + 1)
    class_token = vision.model_type.startswith('clip')
    patches = (vision.image_size // vision.patch_size) ** 2
    fields = dict(
        vision_config=vision,
        text_config=text,
        image_token_index=image_token,
        image_seq_length=patches + class_token - (strategy == 'default'),
        vision_feature_layer=layer,
        vision_feature_select_strategy=strategy,
        tie_word_embeddings=text.tie_word_embeddings,
    )
    if most_tiles is not None:
        del fields['image_seq_length']
        text.vocab_size = max(text.vocab_size, video_token + 1)
        config = LlavaOnevisionConfig(
            image_grid_pinpoints=grids,
            video_token_index=video_token,
            vision_aspect_ratio=f'anyres_max_{most_tiles}',
            **fields,
        )
        return LlavaOnevisionForConditionalGeneration, config
    if grids is not None:
        config = LlavaNextConfig(image_grid_pinpoints=grids, **fields)
        return LlavaNextForConditionalGeneration, config
    if hasattr(text, 'mamba_layers') or head_bias:
        config = HybridLlavaConfig(lm_head_bias=head_bias, **fields)
        return HybridLlavaForConditionalGeneration, config
    return LlavaForConditionalGeneration, LlavaConfig(**fields)


def llava_entries(
    model_class: type,
    config: Any,
    rows: int,
    published_name: Callable[[str], str],
    special: Iterable[Entry] = (),
) -> list[Entry]:
    """The table of a LLaVA, whose vocabulary may be smaller than here.

    Args:
        model_class, config: See :func:`llava_model`.
        rows: Size of the vocabulary in the folder.
        published_name: Maps a tensor's name here to its published name.
        special: Entries of tensors that differ in more than their names.
    """
    words = config.text_config.vocab_size
    entries = entries_of(model_class, config, published_name, special)
    return [_with_words(entry, rows, words) for entry in entries]


def _with_words(entry: Entry, rows: int, wanted: int) -> Entry:
    names = list(entry.parts)
    if names != [_EMBEDDING] and not names[0].startswith(_HEAD):
        return entry
    shape = (rows, *entry.shape[1:])
    return Entry(entry.name, shape, {names[0]: padded_rows(wanted)})


def tower_name(name: str, prefix: str) -> str | None:
    """The published name of a tensor of the vision tower, None for other tensors.

    Args:
        name: Its name here.
        prefix: Prefix of the published names of the tower's tensors.
    """
    own = 'model.vision_tower.'
    if not name.startswith(own):
        return None
    return prefix + name.removeprefix(own).removeprefix('vision_model.')
