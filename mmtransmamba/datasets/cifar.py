"""CIFAR-10 from shards of JPEG files."""

from mmpretrain.datasets.categories import CIFAR10_CATEGORIES

from mmtransmamba.datasets.image_shards import ImageShards
from mmtransmamba.registry import DATASETS


@DATASETS.register_module()
class CIFAR10Shards(ImageShards):
    """CIFAR-10 as :class:`~mmtransmamba.datasets.image_shards.ImageShards`.

    The splits are ``'train'`` (``train_0.npz``, ``train_1.npz``, about 45 MB) and
    ``'test'`` (``test.npz``); images are 32x32. For the original binary release use
    mmpretrain's ``CIFAR10``.
    """

    METAINFO = {'classes': CIFAR10_CATEGORIES}
    SPLITS = {'train': ('train_0.npz', 'train_1.npz'), 'test': ('test.npz',)}
