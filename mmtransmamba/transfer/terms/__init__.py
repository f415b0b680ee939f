from .base import DistillBatch, Term, TransferPair
from .language import (
    ForcedLayerTerm,
    HiddenStatesTerm,
    MixerOutputTerm,
    NextTokenTerm,
)
from .layers import DirectionTerm, LayerTerm, PooledLayerTerm
from .mixing_matrix import MixingMatrixTerm
from .outputs import FeatureTerm, HardLabelTerm, LogitsTerm
from .rivals import AttentionMapTerm, RelationTerm
from .similarity import SimilarityTerm
from .token_kl import TokenKLTerm

__all__ = [
    'AttentionMapTerm',
    'DirectionTerm',
    'DistillBatch',
    'Term',
    'FeatureTerm',
    'ForcedLayerTerm',
    'HardLabelTerm',
    'HiddenStatesTerm',
    'LayerTerm',
    'LogitsTerm',
    'MixerOutputTerm',
    'MixingMatrixTerm',
    'NextTokenTerm',
    'PooledLayerTerm',
    'RelationTerm',
    'SimilarityTerm',
    'TokenKLTerm',
    'TransferPair',
]
