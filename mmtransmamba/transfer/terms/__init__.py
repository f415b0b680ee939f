from .base import DistillBatch, Term, TransferPair
from .language import (
    ForcedLayerTerm,
    HiddenStatesTerm,
    MixerOutputTerm,
    NextTokenTerm,
    TokenKLTerm,
)
from .layers import DirectionTerm, LayerTerm, PooledLayerTerm
from .outputs import FeatureTerm, LogitsTerm
from .similarity import SimilarityTerm

__all__ = [
    'DirectionTerm',
    'DistillBatch',
    'Term',
    'FeatureTerm',
    'ForcedLayerTerm',
    'HiddenStatesTerm',
    'LayerTerm',
    'LogitsTerm',
    'MixerOutputTerm',
    'NextTokenTerm',
    'PooledLayerTerm',
    'SimilarityTerm',
    'TokenKLTerm',
    'TransferPair',
]
