from . import distillers, losses, terms, weight_maps, weighting
from .distillers import CausalLM, LanguageDistiller, MultiDirectionDistiller

__all__ = [
    'CausalLM',
    'LanguageDistiller',
    'MultiDirectionDistiller',
    'distillers',
    'losses',
    'terms',
    'weight_maps',
    'weighting',
]
