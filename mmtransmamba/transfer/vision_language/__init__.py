"""Turning pre-trained vision-language models into Mamba hybrids."""

from .convert import convert_vlm, plan_vlm_conversion
from .teachers import is_vision_language, language_model_of, load_vlm

__all__ = [
    'convert_vlm',
    'is_vision_language',
    'language_model_of',
    'load_vlm',
    'plan_vlm_conversion',
]
