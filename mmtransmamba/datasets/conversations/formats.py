"""Conversion of annotation rows to conversations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from mmtransmamba.datasets.conversations.conversation import (
    IMAGE,
    BadSampleError,
    Conversation,
    ImageSource,
    Turn,
)
from mmtransmamba.utils.text_files import is_text

Row = Mapping[str, Any]
Format = Callable[[Row], Conversation]

_ROLES = {
    'human': 'user',
    'user': 'user',
    'gpt': 'assistant',
    'model': 'assistant',
    'assistant': 'assistant',
    'system': 'system',
}


def llava(row: Row) -> Conversation:
    """LLaVA's rows, also used by ShareGPT4V.

    ``{"id", "image", "conversations": [{"from": "human", "value"}, {"from": "gpt",
    "value"}, …]}``; ``image`` is a path, a list of them, or absent; in Parquet
    ``{"bytes", "path"}``. Answers before the first question are left out, as in LLaVA's
    training code.
    """
    turns = [_turn(said, 'from', 'value') for said in _list(row, 'conversations')]
    first = 1 if turns and turns[0].role == 'system' else 0
    while len(turns) > first and turns[first].role == 'assistant':
        del turns[first]
    return Conversation(turns, _images(row), row_name(row))


def llava_cot(row: Row) -> Conversation:
    """LLaVA-CoT's rows: as LLaVA's, but questions need not mark the image's place.

    An image without a placeholder is put before the first question.
    """
    conversation = llava(row)
    return _place_images(conversation)


def solo(row: Row) -> Conversation:
    """Rows of SOLO's and mmMamba's mixture (``VLM-SFT``).

    As LLaVA's, with the answers' role ``"gpt"`` or ``"model"``. An image without a
    placeholder is put before the first question. Rows with a video are refused.
    """
    if row.get('video'):
        raise BadSampleError('missing image', f'{row_name(row)!r} has a video')
    return _place_images(llava(row))


def messages(row: Row) -> Conversation:
    """Rows of chat interfaces.

    ``{"messages": [{"role", "content"}, …], "images": [path, …]}``; ``content`` is
    text, or a list of ``{"type": "text", "text"}`` and ``{"type": "image"}``, which
    may hold its ``path``, or else is the next one of ``images``. If there is no
    placeholder at all, the images are put before the first question.
    """
    turns = []
    images: list[ImageSource | None] = []
    for said in _list(row, 'messages'):
        content = said.get('content') if isinstance(said, Mapping) else None
        if not isinstance(content, list):
            turns.append(_turn(said, 'role', 'content'))
            continue
        text = ''
        for part in content:
            kind = part.get('type') if isinstance(part, Mapping) else None
            if kind == 'image':
                text += IMAGE
                images += _contents(part.get('path'), row) or [None]
            elif kind == 'text' and isinstance(part.get('text'), str):
                text += part['text']
            else:
                raise BadSampleError(
                    'malformed turns', f'{row_name(row)!r} has a part {part!r:.80}'
                )
        turns.append(_turn(dict(said, content=text), 'role', 'content'))
    listed = iter(_images(row))
    placed = [next(listed, None) if image is None else image for image in images]
    # One too many, or too few, makes a bad sample.
    found = [image for image in placed if image is not None] + list(listed)
    return _place_images(Conversation(turns, found, row_name(row)))


def question(row: Row) -> Conversation:
    """A question with its answer: ``{"question", "answer", "image"}``."""
    turns = [_turn(dict(role='user', text=row.get('question')), 'role', 'text')]
    if row.get('answer') is not None:
        turns.append(_turn(dict(role='assistant', text=row['answer']), 'role', 'text'))
    return _place_images(Conversation(turns, _images(row), row_name(row)))


FORMATS: dict[str, Format] = {
    'llava': llava,
    'llava_cot': llava_cot,
    'messages': messages,
    'question': question,
    'sharegpt4v': llava,
    'solo': solo,
}
"""Formats that may be chosen by name."""


def image_first(conversation: Conversation) -> Conversation:
    """Put a turn's images before its words, as LLaVA-1.5's training code does."""
    turns = []
    for turn in conversation.turns:
        count = turn.text.count(IMAGE)
        if count:
            words = turn.text.replace(IMAGE, '').strip()
            turn = Turn(turn.role, (f'{IMAGE}\n' * count + words).strip())
        turns.append(turn)
    return replace(conversation, turns=turns)


def row_name(row: Row, default: str = '') -> str:
    """The row's id."""
    for key in ('question_id', 'id'):
        if row.get(key) is not None:
            return str(row[key])
    return default


def _list(row: Row, key: str) -> list:
    value = row.get(key)
    if not isinstance(value, list) or not value:
        raise BadSampleError(
            'malformed turns', f'{row_name(row)!r} has no list {key!r}, but {list(row)}'
        )
    return value


def _turn(said: Any, role: str, text: str) -> Turn:
    known = isinstance(said, Mapping) and isinstance(said.get(role), str)
    if not known or said[role] not in _ROLES or not is_text(said.get(text)):
        raise BadSampleError(
            'malformed turns',
            f'a turn must have a {role!r} out of {sorted(_ROLES)} and a {text!r} of '
            f'text, got {said!r:.120}',
        )
    return Turn(_ROLES[said[role]], said[text])


def _images(row: Row) -> list:
    found = row.get('images')
    return _contents(row.get('image') if found is None else found, row)


def _contents(found: Any, row: Row) -> list:
    """Paths of images, or what Parquet has of them."""
    if found is None or found == '':
        return []
    images = list(found) if isinstance(found, list | tuple) else [found]
    images = [_content(image) for image in images]
    if not all(isinstance(image, str | bytes) for image in images):
        raise BadSampleError(
            'missing image',
            f'{row_name(row)!r} has images that are neither paths nor contents of '
            f'files: {found!r:.80}',
        )
    return images


def _content(image: Any) -> Any:
    """The content of an image in a column of Parquet, or else its path."""
    if not isinstance(image, Mapping):
        return image
    content = image.get('bytes')
    return image.get('path') if content is None else content


def _place_images(conversation: Conversation) -> Conversation:
    """Put images before the first question, unless there are placeholders."""
    turns = conversation.turns
    if conversation.images and not any(IMAGE in turn.text for turn in turns):
        for i, turn in enumerate(turns):
            if turn.role == 'user':
                shown = f'{IMAGE}\n' * len(conversation.images)
                turns[i] = Turn('user', shown + turn.text)
                break
    return conversation
