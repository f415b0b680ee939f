"""Vision-language models: images and text in, text out."""

from .heads import AnswerHead, VisionLanguageHead
from .patch_decoder import PatchDecoderForConditionalGeneration, PatchDecoderModel
from .patch_decoder_config import PatchDecoderConfig

__all__ = [
    'AnswerHead',
    'PatchDecoderConfig',
    'PatchDecoderForConditionalGeneration',
    'PatchDecoderModel',
    'VisionLanguageHead',
]
