"""Answers that are reasoned out in four sections first (TransMamba §3.4)."""

from __future__ import annotations

from typing import Any

from torch import nn

from mmtransmamba.models.multimodal.heads.answer import AnswerHead
from mmtransmamba.registry import MODELS
from mmtransmamba.utils.reasoning_text import STOP, extract_answer


@MODELS.register_module()
class ReasoningHead(AnswerHead):
    """Responses in LLaVA-CoT's format, of which the conclusion is the answer.

    Generation of a response ends with its ``</CONCLUSION>``, however the tag is made of
    tokens, also while others of its batch go on.

    Args:
        max_new_tokens: Length at which a response is cut off. One that has not come to
            its conclusion by then has no answer.
        untagged: What the answer is of a response without any tag: ``'empty'``, or
            ``'text'`` for all of it; see
            :func:`~mmtransmamba.utils.reasoning_text.extract_answer`.
        **generation: Other settings of transformers' ``generate``.
    """

    def __init__(
        self,
        max_new_tokens: int = 2048,
        untagged: str = 'empty',
        **generation: Any,
    ) -> None:
        super().__init__(max_new_tokens, stop_strings=(STOP,), **generation)
        extract_answer('', untagged)  # refuses what is not accepted
        self.untagged = untagged

    def generate(
        self, model: nn.Module, processor: Any, batch: dict[str, Any]
    ) -> list[str]:
        """See :meth:`VisionLanguageHead.generate`.

        The tag belongs to the text. What the token that completes it has besides, a
        line break for example, is cut off.
        """
        texts = super().generate(model, processor, batch)
        return [_until_stop(text) for text in texts]

    def answer_of(self, text: str) -> str:
        """The conclusion of a response; empty if there is none."""
        return extract_answer(text, self.untagged).text


def _until_stop(text: str) -> str:
    before, stop, _ = text.partition(STOP)
    return before + stop
