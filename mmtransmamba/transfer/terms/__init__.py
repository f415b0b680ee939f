from .base import DistillBatch, DistillTerm, TransferPair
from .layers import DirectionTerm, LayerTerm, PooledLayerTerm
from .outputs import FeatureTerm, LogitsTerm

__all__ = [
    'DirectionTerm',
    'DistillBatch',
    'DistillTerm',
    'FeatureTerm',
    'LayerTerm',
    'LogitsTerm',
    'PooledLayerTerm',
    'TransferPair',
]
