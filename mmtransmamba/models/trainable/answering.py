"""Answers of a vision-language model to the questions of a batch."""

from __future__ import annotations

from typing import Any

from torch import nn

from mmtransmamba.models.folders.companions import Companions
from mmtransmamba.models.multimodal.heads import VisionLanguageHead
from mmtransmamba.registry import MODELS


def build_head(head: dict | nn.Module) -> VisionLanguageHead:
    """The head specified by a config."""
    return head if isinstance(head, nn.Module) else MODELS.build(head)


def answer(
    head: VisionLanguageHead | None,
    model: nn.Module,
    companions: Companions,
    batch: dict[str, Any],
) -> list[dict[str, str]]:
    """Answer the questions of a batch.

    Raises:
        ValueError: The model has no head.
    """
    if head is None:
        raise ValueError(
            'The batch has "answers", but the model has no head that could answer: '
            "give head=dict(type='mmtransmamba.AnswerHead')."
        )
    return head.predict(model, companions.processor, batch)
