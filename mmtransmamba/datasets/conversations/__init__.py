"""Conversations about images: reading, encoding and batching."""

from .collate import collate_conversations
from .conversation import (
    IMAGE,
    REASONS,
    BadSampleError,
    Conversation,
    Turn,
    load_image,
)
from .encoding import encode, encode_prompt
from .templates import TEMPLATES, ChatTemplate, chat_template

__all__ = [
    'BadSampleError',
    'ChatTemplate',
    'Conversation',
    'IMAGE',
    'REASONS',
    'TEMPLATES',
    'Turn',
    'chat_template',
    'collate_conversations',
    'encode',
    'encode_prompt',
    'load_image',
]
