"""Metrics, in mmengine's terms."""

from . import vlm
from .retrieval_metric import TextVideoRetrievalMetric
from .token_metric import TokenMetric

__all__ = ['TextVideoRetrievalMetric', 'TokenMetric', 'vlm']
