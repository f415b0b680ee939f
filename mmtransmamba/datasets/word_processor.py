"""A processor with one token per word, for data sets with a small vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# The order determines the ids that the configs use.
SPECIAL = ('<pad>', '<s>', '</s>', '<unk>', '<image>', 'USER:', 'ASSISTANT:')
CHAT_TEMPLATE = (
    '{{ bos_token }}{% for message in messages %}'
    "{% if message['content'] is string %}{% set text = message['content'] %}"
    "{% else %}{% set said = namespace(text='') %}"
    "{% for part in message['content'] %}{% set said.text = said.text + "
    "('<image> ' if part['type'] == 'image' else part['text']) %}{% endfor %}"
    '{% set text = said.text %}{% endif %}'
    "{% if message['role'] == 'assistant' %}{{ ' ASSISTANT: ' }}"
    '{% generation %}{{ text + eos_token }}{% endgeneration %}'
    "{% else %}{{ ' USER: ' + text }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ ' ASSISTANT: ' }}{% endif %}"
)


def word_processor(
    words: Sequence[str],
    image_size: int,
    patch_size: int,
    image_mean: Sequence[float] = (0.3, 0.3, 0.3),
    image_std: Sequence[float] = (1.0, 1.0, 1.0),
) -> Any:
    """A LLaVA processor that needs no download.

    Text is converted to lower case. Every word and every punctuation mark is one token;
    anything not among ``words`` becomes the token ``<unk>``. Images are prepared for a
    vision tower like CLIP's, with a class token that the language model does not see.

    Args:
        words: Words and punctuation marks, in lower case; the first one has the id
            ``len(SPECIAL)``.
        image_size: Side to which images are scaled.
        patch_size: Side of the vision tower's patches.
        image_mean, image_std: Per channel, on the scale 0..1.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import (
        CLIPImageProcessor,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *words])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token='<unk>'))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token='<pad>',
        bos_token='<s>',
        eos_token='</s>',
        unk_token='<unk>',
        extra_special_tokens={
            'image_token': '<image>',
            'user_token': 'USER:',
            'assistant_token': 'ASSISTANT:',
        },
    )
    return LlavaProcessor(
        image_processor=CLIPImageProcessor(
            size={'height': image_size, 'width': image_size},
            do_center_crop=False,
            image_mean=list(image_mean),
            image_std=list(image_std),
        ),
        tokenizer=tokenizer,
        patch_size=patch_size,
        vision_feature_select_strategy='default',
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
