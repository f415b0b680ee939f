"""Text-video retrieval: annotations, decoding, datasets."""

from .annotations import (
    AnnotationError,
    list_videos,
    match_files,
    read_captions,
    read_didemo,
    read_msrvtt_test,
    read_msrvtt_train,
    write_captions,
)
from .dataset import VideoText
from .decoding import CorruptVideoError, decode_video
from .moving_shapes import MovingShapes
from .reading import read_video
from .samples import collate_video_text
from .shapes_captions import ShapesTokenizer
from .tokenizers import CLIPTextTokenizer, WordTokenizer
from .transforms import DecodeVideo

__all__ = [
    'AnnotationError',
    'CLIPTextTokenizer',
    'CorruptVideoError',
    'DecodeVideo',
    'MovingShapes',
    'ShapesTokenizer',
    'VideoText',
    'WordTokenizer',
    'collate_video_text',
    'decode_video',
    'list_videos',
    'match_files',
    'read_captions',
    'read_didemo',
    'read_msrvtt_test',
    'read_msrvtt_train',
    'read_video',
    'write_captions',
]
