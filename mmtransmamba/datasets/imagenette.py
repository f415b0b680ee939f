"""Imagenette from shards of JPEG files."""

from mmtransmamba.datasets.image_shards import ImageShards
from mmtransmamba.registry import DATASETS

IMAGENETTE_CLASSES = (
    'tench',
    'English springer',
    'cassette player',
    'chain saw',
    'church',
    'French horn',
    'garbage truck',
    'gas pump',
    'golf ball',
    'parachute',
)
IMAGENETTE_INDICES = (0, 217, 482, 491, 497, 566, 569, 571, 574, 701)
"""The numbers of the ten classes among the 1,000 of ImageNet-1k.

A teacher of ImageNet-1k is cut to them by ``class_order=IMAGENETTE_INDICES``, or by
``class_order='names'`` if it has names for its classes.
"""


@DATASETS.register_module()
class ImagenetteShards(ImageShards):
    """Imagenette as :class:`~mmtransmamba.datasets.image_shards.ImageShards`.

    Ten easily told classes of ImageNet-1k, chosen by fast.ai. The splits are
    ``'train'`` (``train.npz``) and ``'val'`` (``val.npz``).
    """

    METAINFO = {'classes': IMAGENETTE_CLASSES}
    SPLITS = {'train': ('train.npz',), 'val': ('val.npz',)}
