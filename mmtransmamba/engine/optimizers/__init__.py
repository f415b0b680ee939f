from .autocast import AutocastOptimWrapper
from .no_weight_decay import NoWeightDecayConstructor
from .scaled import ScaledOptimWrapper

__all__ = ['AutocastOptimWrapper', 'NoWeightDecayConstructor', 'ScaledOptimWrapper']
