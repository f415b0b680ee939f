"""Converted language models in formats for other programs."""

from .export import LanguageExportReport, export_language_model
from .granite import granite_obstacles, to_granite

__all__ = [
    'LanguageExportReport',
    'export_language_model',
    'granite_obstacles',
    'to_granite',
]
