"""Tokenizer, image processor and template of published vision-language folders.

Their own are code, which is not run; those built here are equivalent.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import (
    CLIPImageProcessor,
    LlavaImageProcessor,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    SiglipImageProcessor,
)

from mmtransmamba.models.folders.config import read_model_config
from mmtransmamba.models.folders.published.fields import check_values, file_in, given
from mmtransmamba.models.folders.published.hovle import is_hovle
from mmtransmamba.models.folders.published.layouts import read_published
from mmtransmamba.models.folders.published.llava import is_llava
from mmtransmamba.models.folders.published.llava_parts import IMAGE_TOKEN, VIDEO_TOKEN
from mmtransmamba.models.folders.published.llava_templates import llava_template
from mmtransmamba.models.multimodal.patch_decoder_processor import (
    PatchDecoderProcessor,
)
from mmtransmamba.utils.chat_templates import TEXT_OF, with_image_token
from mmtransmamba.utils.processors import READERS, load_tokenizer

_CONTEXT = '<IMG_CONTEXT>'
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# The system prompt of the training of HoVLE and mmMamba, which affects answers.
_SYSTEM = (
    '你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, '
    '是一个有用无害的人工智能助手。'
)
INTERNLM2_CHAT = (
    TEXT_OF
    + "{{ bos_token + '<|im_start|>system\\n' }}"
    + "{% if messages[0]['role'] == 'system' %}{{ text_of(messages[0]['content']) }}"
    + '{% else %}{{ '
    + json.dumps(_SYSTEM, ensure_ascii=False)
    + " }}{% endif %}{{ '<|im_end|>' }}"
    + "{% for message in messages %}{% if message['role'] == 'user' %}"
    + "{{ '<|im_start|>user\\n' + text_of(message['content']) + '<|im_end|>' }}"
    + "{% elif message['role'] == 'assistant' %}{{ '<|im_start|>assistant\\n' }}"
    + "{% generation %}{{ text_of(message['content']) + '<|im_end|>' }}"
    + '{% endgeneration %}{% endif %}{% endfor %}'
    + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""HoVLE's conversation (``internlm2-chat``); needs the variable ``image_token``."""


def published_processor(folder: str | Path) -> Any | None:
    """The processor of a published vision-language folder.

    Returns:
        The processor; None for any other folder, and for one with a
        ``processor_config.json``.

    Raises:
        ValueError: The folder has no tokenizer that can be read without its code.
    """
    folder = Path(folder)
    if not (folder / 'config.json').is_file():
        return None
    if (folder / 'processor_config.json').is_file():
        return None
    raw = given(read_model_config(folder))
    if is_hovle(raw):
        return _hovle_processor(folder, raw)
    if raw.get('model_type') == 'tinyllava' or is_llava(raw):
        return _llava_processor(folder, raw)
    return None


def _hovle_processor(folder: Path, raw: dict[str, Any]) -> PatchDecoderProcessor:
    where = file_in(folder)
    check_values(where, raw, dict(template='internlm2-chat', min_dynamic_patch=1))
    if not (folder / 'tokenizer.json').is_file():
        raise ValueError(
            f'"{folder}" has no tokenizer.json, and its tokenizer_internlm2 is code, '
            'which is not run: put the tokenizer.json of a fast InternLM2 tokenizer '
            'with the same vocabulary there.'
        )
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    config = read_published(folder, raw).config
    token = tokenizer.convert_tokens_to_ids(_CONTEXT)
    if token != config.image_token_id:
        raise ValueError(
            f'{where}: img_context_token_id={config.image_token_id}, but the tokenizer '
            f'numbers {_CONTEXT} {token}.'
        )
    tiles = raw.get('max_dynamic_patch', 6) if raw.get('dynamic_image_size') else 1
    sides = dict(height=config.image_size, width=config.image_size)
    return PatchDecoderProcessor(
        image_processor=CLIPImageProcessor(
            size=sides, do_center_crop=False, image_mean=_MEAN, image_std=_STD
        ),
        tokenizer=tokenizer,
        patch_size=config.patch_size,
        image_token=_CONTEXT,
        max_tiles=tiles,
        thumbnail=bool(raw.get('use_thumbnail', False)),
        chat_template=with_image_token(INTERNLM2_CHAT, f'<img>{_CONTEXT}</img>'),
    )


def _llava_processor(
    folder: Path, raw: dict[str, Any]
) -> LlavaProcessor | LlavaNextProcessor | LlavaOnevisionProcessor:
    config = read_published(folder, raw).config
    vision = config.vision_config
    siglip = vision.model_type.startswith('siglip')
    tokenizer = load_tokenizer(folder)
    onevision = config.model_type == 'llava_onevision'
    for token in (IMAGE_TOKEN, VIDEO_TOKEN) if onevision else (IMAGE_TOKEN,):
        if token not in tokenizer.get_vocab():
            tokenizer.add_special_tokens({'extra_special_tokens': [token]})
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    template = llava_template(raw, config.text_config.model_type, tokenizer)
    parts = dict(
        image_processor=_llava_images(config, raw),
        tokenizer=tokenizer,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        image_token=IMAGE_TOKEN,
        chat_template=with_image_token(template, IMAGE_TOKEN),
    )
    if onevision:
        patches = (vision.image_size // vision.patch_size) ** 2
        return LlavaOnevisionProcessor(
            video_processor=LlavaOnevisionVideoProcessor(**_square(config)),
            video_token=VIDEO_TOKEN,
            num_image_tokens=patches + (not siglip),
            vision_aspect_ratio=config.vision_aspect_ratio,
            **parts,
        )
    kind = LlavaNextProcessor if config.model_type == 'llava_next' else LlavaProcessor
    return kind(
        patch_size=vision.patch_size,
        num_additional_image_tokens=int(not siglip),
        **parts,
    )


def _square(config: Any) -> dict[str, Any]:
    """The size of an image, and its mean and deviation if they are not CLIP's."""
    side = config.vision_config.image_size
    siglip = config.vision_config.model_type.startswith('siglip')
    normal = dict(image_mean=[0.5] * 3, image_std=[0.5] * 3) if siglip else {}
    return dict(size=dict(height=side, width=side)) | normal


def _llava_images(config: Any, raw: dict[str, Any]) -> Any:
    square = _square(config)
    sides = square['size']
    shortest = dict(shortest_edge=config.vision_config.image_size)
    cropped = square | dict(size=shortest, crop_size=sides)
    if config.model_type == 'llava_onevision':
        return LlavaOnevisionImageProcessor(
            image_grid_pinpoints=config.image_grid_pinpoints, **square
        )
    if config.model_type == 'llava_next':
        return LlavaNextImageProcessor(
            image_grid_pinpoints=config.image_grid_pinpoints, **cropped
        )
    if raw.get('image_aspect_ratio') == 'pad':
        return LlavaImageProcessor(do_pad=True, **cropped)
    if config.vision_config.model_type.startswith('siglip'):
        return SiglipImageProcessor(size=sides)
    return CLIPImageProcessor(**cropped)


READERS.append(published_processor)
