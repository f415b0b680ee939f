"""Vision-language models: images and text in, text out."""

from .heads import AnswerHead, VisionLanguageHead
from .llava import HybridLlavaConfig, HybridLlavaForConditionalGeneration
from .llava_next import (
    HybridLlavaNextConfig,
    HybridLlavaNextForConditionalGeneration,
)
from .llava_onevision import (
    HybridLlavaOnevisionConfig,
    HybridLlavaOnevisionForConditionalGeneration,
)
from .patch_decoder import PatchDecoderForConditionalGeneration, PatchDecoderModel
from .patch_decoder_config import PatchDecoderConfig
from .patch_decoder_processor import PatchDecoderProcessor

__all__ = [
    'AnswerHead',
    'HybridLlavaConfig',
    'HybridLlavaForConditionalGeneration',
    'HybridLlavaNextConfig',
    'HybridLlavaNextForConditionalGeneration',
    'HybridLlavaOnevisionConfig',
    'HybridLlavaOnevisionForConditionalGeneration',
    'PatchDecoderConfig',
    'PatchDecoderForConditionalGeneration',
    'PatchDecoderModel',
    'PatchDecoderProcessor',
    'VisionLanguageHead',
]
