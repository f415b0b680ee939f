"""Vision-language models: images and text in, text out."""

from .heads import AnswerHead, VisionLanguageHead
from .llava import HybridLlavaConfig, HybridLlavaForConditionalGeneration
from .patch_decoder import PatchDecoderForConditionalGeneration, PatchDecoderModel
from .patch_decoder_config import PatchDecoderConfig
from .patch_decoder_processor import PatchDecoderProcessor

__all__ = [
    'AnswerHead',
    'HybridLlavaConfig',
    'HybridLlavaForConditionalGeneration',
    'PatchDecoderConfig',
    'PatchDecoderForConditionalGeneration',
    'PatchDecoderModel',
    'PatchDecoderProcessor',
    'VisionLanguageHead',
]
