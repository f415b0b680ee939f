"""Vision-language models small enough for tests, and folders of them."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

IMAGE_SIZE, PATCH_SIZE = 16, 8
"""Four patches."""

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% set text %}{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<image>\n{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{% endset %}{% if message['role'] == 'assistant' %}{% generation %}{{ text }}"
    "{{ eos_token }}{% endgeneration %}{% else %}{{ text + ' ' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT: ' }}{% endif %}"
)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token for each printable ASCII character, and four special ones."""
    special = ['<pad>', '<s>', '</s>', '<unk>', '<image>']
    characters = ['\n'] + [chr(code) for code in range(32, 127)]
    vocab = {token: i for i, token in enumerate(special + characters)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token='<unk>'))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex('[\\s\\S]'), 'isolated')
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token='<s>',
        eos_token='</s>',
        unk_token='<unk>',
        pad_token='<pad>',
        extra_special_tokens={'image_token': '<image>'},
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def tiny_processor() -> LlavaProcessor:
    """Images of any size become four tokens ``<image>``."""
    return LlavaProcessor(
        image_processor=CLIPImageProcessor(
            size={'shortest_edge': IMAGE_SIZE},
            crop_size={'height': IMAGE_SIZE, 'width': IMAGE_SIZE},
        ),
        tokenizer=tiny_tokenizer(),
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy='default',
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def tiny_llava(seed: int = 0, **text) -> LlavaForConditionalGeneration:
    """LLaVA with random weights: CLIP of two layers, Llama of four (with GQA)."""
    tokenizer = tiny_tokenizer()
    text_config = LlamaConfig(
        **dict(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=4096,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        )
        | text
    )
    vision_config = CLIPVisionConfig(
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
    )
    config = LlavaConfig(
        vision_config=vision_config,
        text_config=text_config,
        image_token_index=tokenizer.convert_tokens_to_ids('<image>'),
        image_seq_length=(IMAGE_SIZE // PATCH_SIZE) ** 2,
        vision_feature_layer=-2,
        vision_feature_select_strategy='default',
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config).eval()
    model.generation_config.pad_token_id = 0
    model.generation_config.eos_token_id = 2
    return model


def save_tiny_llava(folder: str | Path, seed: int = 0, **text) -> str:
    """A folder with model and processor, as a user has it."""
    tiny_llava(seed, **text).save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return str(folder)
