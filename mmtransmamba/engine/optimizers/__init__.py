from .autocast import AutocastOptimWrapper
from .no_weight_decay import NoWeightDecayConstructor

__all__ = ['AutocastOptimWrapper', 'NoWeightDecayConstructor']
