"""Datasets and image transforms, in mmengine's and mmpretrain's terms."""

from .cifar import CIFAR10Shards
from .digits import Digits
from .markov_tokens import MarkovTokens
from .packed_text import PackedText
from .subset import Subset
from .token_collate import collate_tokens
from .token_samples import TokenSamples
from .transforms import RandomAffine

__all__ = [
    'CIFAR10Shards',
    'Digits',
    'MarkovTokens',
    'PackedText',
    'RandomAffine',
    'Subset',
    'TokenSamples',
    'collate_tokens',
]
