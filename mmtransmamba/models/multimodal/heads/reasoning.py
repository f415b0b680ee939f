"""Head for answers after reasoning in four sections (TransMamba §3.4)."""

from __future__ import annotations

from typing import Any

from torch import nn

from mmtransmamba.models.multimodal.heads.answer import AnswerHead
from mmtransmamba.registry import MODELS
from mmtransmamba.utils.reasoning_text import STOP, extract_answer


@MODELS.register_module()
class ReasoningHead(AnswerHead):
    """Responses in LLaVA-CoT's format, whose conclusion is the answer.

    Generation of a response ends with its ``</CONCLUSION>``, however the tag is
    tokenised, and also while other responses of the batch continue.

    Args:
        max_new_tokens: Maximum length of a response in tokens. A response without
            conclusion by then has no answer.
        untagged: The answer of a response without any tag: ``'empty'``, or ``'text'``
            for the whole text; see
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
        extract_answer('', untagged)  # refuses other values
        self.untagged = untagged

    def generate(
        self, model: nn.Module, processor: Any, batch: dict[str, Any]
    ) -> list[str]:
        """See :meth:`VisionLanguageHead.generate`.

        The closing tag is part of the text. If its last token contains more, such as a
        line break, the rest is cut off.
        """
        texts = super().generate(model, processor, batch)
        return [_until_stop(text) for text in texts]

    def answer_of(self, text: str) -> str:
        """The conclusion of a response; empty if there is none."""
        return extract_answer(text, self.untagged).text


def _until_stop(text: str) -> str:
    before, stop, _ = text.partition(STOP)
    return before + stop
