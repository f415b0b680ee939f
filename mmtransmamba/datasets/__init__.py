"""Datasets and image transforms, in mmengine's and mmpretrain's terms."""

from .cifar import CIFAR10Shards
from .conversations import (
    ConversationDataset,
    ConversationStream,
    LengthGroupedSampler,
    collate_conversations,
    pack_conversations,
)
from .digits import Digits
from .easy_vqa import EasyVQA, EasyVQAPatches
from .imagenette import IMAGENETTE_CLASSES, IMAGENETTE_INDICES, ImagenetteShards
from .mqar_tokens import MQARTokens
from .packed_text import PackedText
from .recorded_views import RecordedViews
from .shapes_vqa import ShapesCells, ShapesVQA
from .subset import Subset
from .token_collate import collate_tokens
from .token_samples import TokenSamples
from .token_slice import Slice
from .transforms import RandomAffine
from .video_text import MovingShapes, VideoText, collate_video_text

__all__ = [
    'IMAGENETTE_CLASSES',
    'IMAGENETTE_INDICES',
    'CIFAR10Shards',
    'ConversationDataset',
    'ConversationStream',
    'Digits',
    'EasyVQA',
    'EasyVQAPatches',
    'ImagenetteShards',
    'LengthGroupedSampler',
    'MQARTokens',
    'MovingShapes',
    'PackedText',
    'RandomAffine',
    'RecordedViews',
    'ShapesCells',
    'ShapesVQA',
    'Slice',
    'Subset',
    'TokenSamples',
    'VideoText',
    'collate_conversations',
    'collate_tokens',
    'collate_video_text',
    'pack_conversations',
]
