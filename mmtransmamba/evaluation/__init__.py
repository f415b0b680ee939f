"""Metrics, in mmengine's terms."""

from . import reasoning, vlm
from .answer_accuracy import AnswerAccuracy
from .reasoning import ReasoningAccuracy, ReasoningFormat
from .retrieval_metric import TextVideoRetrievalMetric
from .token_metric import TokenMetric

__all__ = [
    'AnswerAccuracy',
    'ReasoningAccuracy',
    'ReasoningFormat',
    'TextVideoRetrievalMetric',
    'TokenMetric',
    'reasoning',
    'vlm',
]
