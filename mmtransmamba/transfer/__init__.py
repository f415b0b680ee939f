from . import distillers, losses, terms, weight_maps, weighting
from .distillers import (
    CausalLM,
    LanguageDistiller,
    MultiDirectionDistiller,
    VisionLanguageModel,
)

__all__ = [
    'CausalLM',
    'LanguageDistiller',
    'MultiDirectionDistiller',
    'VisionLanguageModel',
    'distillers',
    'losses',
    'terms',
    'weight_maps',
    'weighting',
]
