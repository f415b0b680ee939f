"""Metrics, in mmengine's terms."""

from .token_metric import TokenMetric

__all__ = ['TokenMetric']
