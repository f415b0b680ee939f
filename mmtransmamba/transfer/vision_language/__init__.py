"""Turning pre-trained vision-language models into Mamba hybrids."""

from .convert import automatic_text_layers, convert_vlm, plan_vlm_conversion

__all__ = ['automatic_text_layers', 'convert_vlm', 'plan_vlm_conversion']
