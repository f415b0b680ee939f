"""Decoder-only vision-language models small enough for tests."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny_vlms import CHAT_TEMPLATE, IMAGE_SIZE, PATCH_SIZE, tiny_tokenizer
from torch import Tensor
from transformers import AutoConfig, CLIPImageProcessor, LlavaProcessor

from mmtransmamba.models.language import ATTENTION, MAMBA
from mmtransmamba.models.multimodal import (
    PatchDecoderConfig,
    PatchDecoderForConditionalGeneration,
)

PATCHES = (IMAGE_SIZE // PATCH_SIZE) ** 2
IMAGE = tiny_tokenizer().convert_tokens_to_ids('<image>')
LAYOUTS = {
    'attention': [ATTENTION] * 4,
    'attention first': [ATTENTION, MAMBA, MAMBA, MAMBA],
    'mamba first': [MAMBA, MAMBA, ATTENTION, MAMBA],
    'pure': [MAMBA] * 4,
}
FAMILIES = {
    'llama': dict(num_key_value_heads=2),
    'phi': dict(partial_rotary_factor=0.5, resid_pdrop=0.0, embd_pdrop=0.0),
    'qwen2': dict(num_key_value_heads=2),
}


def tiny_patch_decoder(
    layout: str | None = None,
    family: str = 'llama',
    seed: int = 0,
    holistic_rope: dict | None = None,
    **text,
) -> PatchDecoderForConditionalGeneration:
    """Two holistic layers and two of a language model, with random weights.

    Args:
        layout: Key of ``LAYOUTS`` for a hybrid, None for the Transformer.
    """
    fields = dict(
        vocab_size=len(tiny_tokenizer()),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=256,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    fields |= FAMILIES[family]
    if layout is not None:
        family = f'hybrid_{family}'
        fields |= dict(layer_types=LAYOUTS[layout])
    config = PatchDecoderConfig(
        text_config=AutoConfig.for_model(family, **fields | text),
        num_holistic_layers=2,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        image_token_id=IMAGE,
        holistic_rope=holistic_rope,
        lm_head_bias=family.endswith('phi'),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = PatchDecoderForConditionalGeneration(config).eval()
        with torch.no_grad():  # larger than the init, so that every part matters
            for name, parameter in model.named_parameters():
                if parameter.ndim > 1 and 'conv1d' not in name:
                    parameter.mul_(6)
    model.generation_config.pad_token_id = 0
    model.generation_config.eos_token_id = 2
    # An answer has no images.
    model.generation_config.suppress_tokens = [IMAGE]
    return model


def patch_processor() -> LlavaProcessor:
    """As ``tiny_processor``, without the token that CLIP puts before its patches."""
    return LlavaProcessor(
        image_processor=CLIPImageProcessor(
            size={'shortest_edge': IMAGE_SIZE},
            crop_size={'height': IMAGE_SIZE, 'width': IMAGE_SIZE},
        ),
        tokenizer=tiny_tokenizer(),
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy='full',
        num_additional_image_tokens=0,
        chat_template=CHAT_TEMPLATE,
    )


def save_tiny_patch_decoder(
    folder: str | Path, layout: str | None = None, **fields
) -> str:
    """A folder with model and processor, as a user has it."""
    tiny_patch_decoder(layout, **fields).save_pretrained(folder)
    patch_processor().save_pretrained(folder)
    return str(folder)


def image_text_batch(
    images: tuple[int, ...] = (1, 0, 2), side: str = 'left', seed: int = 0
) -> dict[str, Tensor]:
    """Prompts of different lengths, padded on one side.

    Args:
        images: Number of images in each row.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for number, count in enumerate(images):
        words = torch.randint(5, 100, (4 + number,), generator=generator)
        image = torch.full((PATCHES,), IMAGE)
        # Words between the images too.
        parts = [part for i in range(count) for part in (words[i : i + 1], image)]
        rows.append(torch.cat([torch.tensor([1]), *parts, words]))
    length = max(map(len, rows))

    def pad(row: Tensor) -> Tensor:
        space = length - len(row)
        return torch.nn.functional.pad(
            row, (space, 0) if side == 'left' else (0, space)
        )

    batch = dict(
        input_ids=torch.stack([pad(row) for row in rows]),
        attention_mask=torch.stack([pad(torch.ones_like(row)) for row in rows]),
    )
    if sum(images):
        batch['pixel_values'] = torch.randn(
            sum(images), 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator
        )
    return batch
