from . import distillers, losses, terms, weight_maps, weighting
from .distillers import LanguageDistiller, MultiDirectionDistiller

__all__ = [
    'LanguageDistiller',
    'MultiDirectionDistiller',
    'distillers',
    'losses',
    'terms',
    'weight_maps',
    'weighting',
]
