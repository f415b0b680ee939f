"""Head for answers of a word or a few sentences."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from mmtransmamba.models.multimodal.heads.base import VisionLanguageHead
from mmtransmamba.models.multimodal.heads.generation import (
    refuse_nan,
    room_for_answer,
)
from mmtransmamba.models.multimodal.heads.stopping import stop_criterion
from mmtransmamba.registry import MODELS
from mmtransmamba.utils.generation_settings import plain_settings

# Sampling settings that a model's own generation config may have; without sampling
# they would only cause warnings.
_SAMPLING = ('temperature', 'top_p', 'top_k')


@MODELS.register_module()
class AnswerHead(VisionLanguageHead):
    """Short answers, which consist of the whole generated text.

    Args:
        max_new_tokens: Maximum length of an answer in tokens.
        stop_strings: Texts that end an answer, and are not part of it.
        num_beams: Number of beams; 1 for greedy decoding.
        **generation: Other settings of transformers' ``generate``, such as
            ``do_sample=True, temperature=0.7``.
    """

    def __init__(
        self,
        max_new_tokens: int = 16,
        stop_strings: Sequence[str] = (),
        num_beams: int = 1,
        **generation: Any,
    ) -> None:
        super().__init__()
        self.stop_strings = tuple(stop_strings)
        self.generation = dict(
            max_new_tokens=max_new_tokens, num_beams=num_beams, do_sample=False
        )
        self.generation |= generation
        if not self.generation['do_sample']:
            self.generation = dict.fromkeys(_SAMPLING) | self.generation

    @torch.no_grad()
    def generate(
        self, model: nn.Module, processor: Any, batch: dict[str, Any]
    ) -> list[str]:
        """See :meth:`VisionLanguageHead.generate`.

        Raises:
            ValueError: The prompts are padded on the right, or leave no room in the
                model's context, or the model computes NaN.
        """
        mask = batch.get('attention_mask')
        if mask is not None and not bool(mask[:, -1].all()):
            raise ValueError(
                f'{type(self).__name__}: the prompts are padded on the right, where '
                "the answers go on; collate them with side='left'."
            )
        tokenizer = getattr(processor, 'tokenizer', processor)
        settings = dict(self.generation)
        room = room_for_answer(
            model, batch['input_ids'].shape[1], settings.get('max_new_tokens')
        )
        if room is not None:
            settings['max_new_tokens'] = room
        settings['logits_processor'] = [
            *(settings.get('logits_processor') or ()),
            refuse_nan,
        ]
        if self.stop_strings:
            settings['stopping_criteria'] = [
                *(settings.get('stopping_criteria') or ()),
                stop_criterion(tokenizer, self.stop_strings),
            ]
        if tokenizer.pad_token_id is not None:
            settings.setdefault('pad_token_id', tokenizer.pad_token_id)
        inputs = {key: value for key, value in batch.items() if key != 'labels'}
        # A model may have tokens that no answer has, such as those of images.
        plain = plain_settings(model, 'suppress_tokens')
        with nullcontext() if settings['do_sample'] else plain:
            ids = model.generate(**inputs, **settings)
        new = ids[:, batch['input_ids'].shape[1] :]
        return tokenizer.batch_decode(new, skip_special_tokens=True)

    def answer_of(self, text: str) -> str:
        """The text before a stop string, without surrounding white space."""
        for stop in self.stop_strings:
            text = text.partition(stop)[0]
        return text.strip()
