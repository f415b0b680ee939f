"""Converted language models in formats for other programs."""

from .bamba import bamba_obstacles, to_bamba
from .export import LanguageExportReport, export_language_model
from .granite import granite_obstacles, to_granite

__all__ = [
    'LanguageExportReport',
    'bamba_obstacles',
    'export_language_model',
    'granite_obstacles',
    'to_bamba',
    'to_granite',
]
