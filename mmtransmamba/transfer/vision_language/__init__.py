"""Turning pre-trained vision-language models into Mamba hybrids."""

from .convert import automatic_text_layers, convert_vlm, plan_vlm_conversion
from .teachers import is_vision_language, language_model_of, load_vlm

__all__ = [
    'automatic_text_layers',
    'convert_vlm',
    'is_vision_language',
    'language_model_of',
    'load_vlm',
    'plan_vlm_conversion',
]
