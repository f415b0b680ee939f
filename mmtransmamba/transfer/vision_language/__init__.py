"""Turning pre-trained vision-language models into Mamba hybrids."""

from .convert import automatic_text_layers, convert_vlm, plan_vlm_conversion
from .patch_decoder import assemble_patch_decoder, write_patch_decoder
from .teachers import is_vision_language, language_model_of, load_vlm

__all__ = [
    'assemble_patch_decoder',
    'automatic_text_layers',
    'convert_vlm',
    'is_vision_language',
    'language_model_of',
    'load_vlm',
    'plan_vlm_conversion',
    'write_patch_decoder',
]
