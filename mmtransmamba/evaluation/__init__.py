"""Metrics, in mmengine's terms."""

from . import reasoning, vlm
from .reasoning import ReasoningAccuracy, ReasoningFormat
from .retrieval_metric import TextVideoRetrievalMetric
from .token_metric import TokenMetric

__all__ = [
    'ReasoningAccuracy',
    'ReasoningFormat',
    'TextVideoRetrievalMetric',
    'TokenMetric',
    'reasoning',
    'vlm',
]
