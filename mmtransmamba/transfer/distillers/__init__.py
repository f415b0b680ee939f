from .language import LanguageDistiller
from .multi_direction import MultiDirectionDistiller

__all__ = [
    'LanguageDistiller',
    'MultiDirectionDistiller',
]
