"""Datasets and image transforms, in mmengine's and mmpretrain's terms."""

from .cifar import CIFAR10Shards
from .digits import Digits
from .subset import Subset
from .transforms import RandomAffine

__all__ = ['CIFAR10Shards', 'Digits', 'RandomAffine', 'Subset']
