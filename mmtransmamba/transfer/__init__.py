from . import distillers, losses, terms, weight_maps, weighting
from .distillers import MultiDirectionDistiller

__all__ = [
    'MultiDirectionDistiller',
    'distillers',
    'losses',
    'terms',
    'weight_maps',
    'weighting',
]
