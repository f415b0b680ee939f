"""Converted language models in formats that other programs read."""

from .export import LanguageExportReport, export_language_model
from .granite import granite_obstacles, to_granite

__all__ = [
    'LanguageExportReport',
    'export_language_model',
    'granite_obstacles',
    'to_granite',
]
