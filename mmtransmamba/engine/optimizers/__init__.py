from .no_weight_decay import NoWeightDecayConstructor

__all__ = ['NoWeightDecayConstructor']
