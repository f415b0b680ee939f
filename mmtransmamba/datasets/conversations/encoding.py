"""Encoding of conversations as tokens, labels and pixels, with a processor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmtransmamba.datasets.conversations.conversation import (
    BadSampleError,
    Conversation,
)
from mmtransmamba.datasets.conversations.templates import Span, chat_template
from mmtransmamba.datasets.token_collate import IGNORED

Sample = dict[str, Any]


def encode(
    processor: Any,
    conversation: Conversation,
    template: str | None = None,
    max_length: int | None = None,
    too_long: str = 'cut',
    template_variables: Mapping[str, Any] | None = None,
) -> Sample:
    """Encode a conversation to learn from.

    The model learns the assistant's tokens and the token that ends the assistant's
    turn. A token that spans the end of the prompt and the start of the answer (a space,
    with most tokenizers) counts as part of the answer.

    Args:
        processor: A transformers processor, or for text alone a tokenizer.
        conversation: The last turn must be the assistant's.
        template: A name out of
            :data:`~mmtransmamba.datasets.conversations.templates.TEMPLATES`, or a
            Jinja template; by default the processor's chat template.
        max_length: Maximum number of tokens in a sample.
        too_long: Treatment of longer samples: ``'cut'`` drops tokens at the end, unless
            they belong to an image or nothing to learn would be left; ``'skip'``
            rejects the sample.
        template_variables: Variables of the template besides the messages.

    Returns:
        ``input_ids``, ``attention_mask`` and ``labels``, int64 ``[L]``; ``length``;
        ``has_image``; if there are images ``pixel_values``, ``[N, 3, H, W]``, one for
        each image or tile. For LLaVA-NeXT and LLaVA-OneVision ``[N, tiles, 3, H, W]``,
        padded to the same number of tiles, and ``image_sizes``, heights and widths,
        int64 ``[N, 2]``; for LLaVA-OneVision also ``batch_num_images``, int64 ``[1]``.

    Raises:
        BadSampleError: The conversation cannot be used.
        ValueError: The chat template or the processor cannot be used.
    """
    if too_long not in ('cut', 'skip'):
        raise ValueError(f"too_long must be 'cut' or 'skip', got {too_long!r}")
    conversation.check()
    chat = chat_template(processor, template, template_variables)
    text, spans = chat.conversation(conversation.turns)
    ids, labels, image, after = _tokens(processor, text, spans, chat.image_token)
    sample = _with_images(processor, conversation, text, ids, after)
    if 'pixel_values' in sample:
        labels = _expand(labels, ids, sample['input_ids'], image)
    sample['labels'] = labels
    return _limit(sample, conversation, image, max_length, too_long)


def encode_prompt(
    processor: Any,
    conversation: Conversation,
    template: str | None = None,
    max_length: int | None = None,
    template_variables: Mapping[str, Any] | None = None,
) -> Sample:
    """Encode a conversation to answer.

    Args:
        processor, template, template_variables: See :func:`encode`.
        conversation: The last turn must be the user's; a final assistant turn is left
            out.
        max_length: Maximum number of tokens in a prompt.

    Returns:
        As for :func:`encode`, without ``labels``. The tokens end where the answer would
        start.

    Raises:
        BadSampleError: The conversation cannot be used, or is too long.
        ValueError: The chat template or the processor cannot be used.
    """
    turns = conversation.turns
    if turns and turns[-1].role == 'assistant':
        turns = turns[:-1]
    asked = Conversation(
        turns, conversation.images, conversation.id, conversation.image_root
    )
    asked.check(answered=False)
    chat = chat_template(processor, template, template_variables)
    text = chat.prompt(turns)
    ids, _, image, after = _tokens(processor, text, [], chat.image_token)
    sample = _with_images(processor, asked, text, ids, after)
    return _limit(sample, asked, image, max_length, 'skip')


def _tokens(
    processor: Any, text: str, spans: Sequence[Span], image_token: str
) -> tuple[Tensor, Tensor, int | None, int]:
    """Token ids with one token for each image, labels, and the image token's id.

    The tokens that the tokenizer adds after the text, such as EOS, are left out: a
    prompt is to end where the answer starts, and the template ends an answer. Their
    number is the last value.
    """
    tokenizer = getattr(processor, 'tokenizer', processor)
    if not tokenizer.is_fast:
        raise ValueError(
            f'{type(tokenizer).__name__} gives no offsets of tokens in the '
            'text; conversations need a tokenizer of the tokenizers library.'
        )
    encoded = tokenizer(
        text,
        add_special_tokens=_adds_special_tokens(tokenizer, text),
        return_offsets_mapping=True,
    )
    begins, ends = torch.tensor(encoded['offset_mapping']).reshape(-1, 2).unbind(1)
    # What is added has no place in the text; of an empty one, the first token stays.
    length = 1 + max((i for i, end in enumerate(ends.tolist()) if end), default=0)
    ids = torch.tensor(encoded['input_ids'])[:length]
    after = len(ends) - len(ids)
    begins, ends = begins[:length], ends[:length]
    labels = torch.full_like(ids, IGNORED)
    for begin, end in spans:
        learned = (begins < end) & (ends > begin) & (ends <= end)
        labels[learned] = ids[learned]
    image = tokenizer.convert_tokens_to_ids(image_token)
    return ids, labels, image, after


def _adds_special_tokens(tokenizer: Any, text: str) -> bool:
    """Whether the tokenizer must add a BOS, because the template has not written it."""
    return not (tokenizer.bos_token and text.startswith(tokenizer.bos_token))


def _with_images(
    processor: Any, conversation: Conversation, text: str, ids: Tensor, after: int
) -> Sample:
    if not conversation.images:
        return dict(input_ids=ids)
    if not hasattr(processor, 'image_processor'):
        raise ValueError(
            f'Conversation {conversation.id!r} has images, but '
            f'{type(processor).__name__} is not a processor of images.'
        )
    images = conversation.load_images()
    tiles = _tiles(processor)
    out = processor(
        text=[text],
        # Only in a list of its own, a conversation's images count as several.
        images=[images] if 'batch_num_images' in tiles else images,
        add_special_tokens=_adds_special_tokens(processor.tokenizer, text),
        return_tensors='pt',
    )
    ids = out['input_ids'][0]
    ids = ids[: len(ids) - after]
    pixels = out['pixel_values']
    if tiles:
        return dict(
            input_ids=ids,
            pixel_values=pixels,
            **{name: torch.as_tensor(out[name]) for name in tiles},
        )
    # An image that is cut into tiles has one [3, H, W] per tile.
    tiled = getattr(processor, 'max_tiles', 1) > 1
    if pixels.ndim != 4 or not (tiled or len(pixels) == len(conversation.images)):
        raise ValueError(
            f'{type(processor).__name__} makes pixel_values {list(pixels.shape)} of '
            f'{len(conversation.images)} images; supported are processors that make '
            'one [3, H, W] of each.'
        )
    return dict(input_ids=ids, pixel_values=pixels)


def _tiles(processor: Any) -> tuple[str, ...]:
    """What a LLaVA with tiles needs besides the pixels; empty for other models."""
    from transformers import LlavaNextProcessor, LlavaOnevisionProcessor

    if isinstance(processor, LlavaOnevisionProcessor):
        return 'image_sizes', 'batch_num_images'
    return ('image_sizes',) if isinstance(processor, LlavaNextProcessor) else ()


def _expand(labels: Tensor, ids: Tensor, expanded: Tensor, image: int) -> Tensor:
    """Labels after each image token is repeated; the repetitions are not learned.

    Raises:
        ValueError: The processor has changed other tokens too.
    """
    kept = expanded != image
    rest = ids != image
    if not torch.equal(expanded[kept], ids[rest]):
        raise ValueError(
            "The processor's tokens of a text with images are not the tokenizer's "
            f'with token {image} repeated; its labels cannot be placed.'
        )
    out = torch.full_like(expanded, IGNORED)
    out[kept] = labels[rest]
    return out


def _limit(
    sample: Sample,
    conversation: Conversation,
    image: int,
    max_length: int | None,
    too_long: str,
) -> Sample:
    """Add the length, and truncate to ``max_length`` where possible."""
    length = len(sample['input_ids'])
    if max_length is not None and length > max_length:
        if too_long == 'skip':
            raise BadSampleError(
                'too long',
                f'conversation {conversation.id!r} has {length} tokens, more than '
                f'max_length={max_length}',
            )
        if conversation.images and (sample['input_ids'][max_length:] == image).any():
            raise BadSampleError(
                'too long',
                f"conversation {conversation.id!r} has an image's tokens after "
                f'max_length={max_length}',
            )
        for key in ('input_ids', 'labels'):
            sample[key] = sample[key][:max_length]
        if (sample['labels'] == IGNORED).all():
            raise BadSampleError(
                'too long',
                f'conversation {conversation.id!r} has no answer within '
                f'max_length={max_length}',
            )
    sample['attention_mask'] = torch.ones_like(sample['input_ids'])
    sample['length'] = len(sample['input_ids'])
    sample['has_image'] = bool(conversation.images)
    return sample
