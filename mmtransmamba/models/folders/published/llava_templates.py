"""Conversations of published LLaVAs, whose code chooses them by the folder's name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmtransmamba.utils.chat_templates import (
    LLAVA_MISTRAL,
    LLAVA_NEXT_SYSTEM,
    LLAVA_V1,
    VICUNA_SYSTEM,
    chatml,
    llava_llama_3,
)
from mmtransmamba.utils.processors import load_tokenizer

_ENDS = ('<|eot_id|>', '<|im_end|>')


def llava_template(raw: dict[str, Any], family: str, tokenizer: Any) -> str:
    """The template of a model, by its family and the tokens it has.

    Args:
        raw: Fields of the ``config.json``.
        family: ``model_type`` of the decoder.
        tokenizer: The tokenizer.
    """
    known = tokenizer.get_vocab()
    if raw['model_type'] == 'tinyllava':
        return LLAVA_V1
    if family == 'qwen2':
        return chatml('You are a helpful assistant.', between='\n')
    if family == 'mistral':
        return LLAVA_MISTRAL
    if '<|eot_id|>' in known:
        tiles = str(raw.get('image_aspect_ratio')).startswith('anyres')
        return llava_llama_3(LLAVA_NEXT_SYSTEM if tiles else VICUNA_SYSTEM)
    if '<|im_end|>' in known:
        return chatml('Answer the questions.', between='')
    return LLAVA_V1


def llava_ends(folder: str | Path, text: Any) -> list[int] | None:
    """Tokens that end an answer, None for those of the config.

    Args:
        folder: The published folder.
        text: Config of its decoder.
    """
    if not any(Path(folder).glob('tokenizer*')):
        return None
    known = load_tokenizer(folder).get_vocab()
    marks = [known[mark] for mark in _ENDS if mark in known]
    own = text.eos_token_id
    own = own if isinstance(own, list) else [own]
    return list(dict.fromkeys([*(n for n in own if n is not None), *marks])) or None
