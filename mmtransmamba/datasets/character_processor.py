"""A processor for tiny vision-language models that needs no download."""

from __future__ import annotations

from typing import Any

_SPECIAL = ('<pad>', '<s>', '</s>', '<unk>', '<image>')
_CHAT_TEMPLATE = (
    '{{ bos_token }}{% for message in messages %}'
    "{% if message['content'] is string %}{% set text = message['content'] %}"
    "{% else %}{% set said = namespace(text='') %}"
    "{% for part in message['content'] %}{% set said.text = said.text + "
    "('<image>\\n' if part['type'] == 'image' else part['text']) %}{% endfor %}"
    '{% set text = said.text %}{% endif %}'
    "{% if message['role'] == 'assistant' %}{{ 'A: ' }}"
    '{% generation %}{{ text + eos_token }}{% endgeneration %}'
    "{% else %}{{ 'Q: ' + text + '\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'A: ' }}{% endif %}"
)


def character_processor(image_size: int, patch_size: int) -> Any:
    """A LLaVA processor with one token for each printable ASCII character.

    Line breaks are tokens too; other characters are unknown. Images are prepared for a
    vision tower like CLIP's, with a class token that the language model does not see.

    Args:
        image_size: Side to which images are scaled.
        patch_size: Side of the vision tower's patches.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        CLIPImageProcessor,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    characters = ['\n', *map(chr, range(32, 127))]
    vocabulary = {token: i for i, token in enumerate([*_SPECIAL, *characters])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token='<unk>'))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r'[\s\S]'), 'isolated')
    backend.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token='<pad>',
        bos_token='<s>',
        eos_token='</s>',
        unk_token='<unk>',
        extra_special_tokens={'image_token': '<image>'},
    )
    return LlavaProcessor(
        image_processor=CLIPImageProcessor(
            size={'shortest_edge': image_size},
            crop_size={'height': image_size, 'width': image_size},
        ),
        tokenizer=tokenizer,
        patch_size=patch_size,
        vision_feature_select_strategy='default',
        num_additional_image_tokens=1,
        chat_template=_CHAT_TEMPLATE,
    )
