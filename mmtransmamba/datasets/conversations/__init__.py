"""Conversations about images: reading, encoding and batching."""

from .bad_samples import BadSampleCounts, BadSamples
from .collate import collate_conversations
from .conversation import (
    IMAGE,
    REASONS,
    BadSampleError,
    Conversation,
    Turn,
    load_image,
)
from .dataset import ConversationDataset
from .encoder import ConversationEncoder, load_processor
from .encoding import encode, encode_prompt
from .formats import FORMATS
from .packing import pack_conversations
from .sampler import LengthGroupedSampler
from .stream import ConversationStream
from .templates import TEMPLATES, ChatTemplate, chat_template

__all__ = [
    'BadSampleCounts',
    'BadSampleError',
    'BadSamples',
    'ChatTemplate',
    'Conversation',
    'ConversationDataset',
    'ConversationEncoder',
    'ConversationStream',
    'FORMATS',
    'IMAGE',
    'LengthGroupedSampler',
    'REASONS',
    'TEMPLATES',
    'Turn',
    'chat_template',
    'collate_conversations',
    'encode',
    'encode_prompt',
    'load_image',
    'load_processor',
    'pack_conversations',
]
