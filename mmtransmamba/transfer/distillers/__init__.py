from .causal_lm import CausalLM
from .language import LanguageDistiller
from .multi_direction import MultiDirectionDistiller
from .vision_language import VisionLanguageModel

__all__ = [
    'CausalLM',
    'LanguageDistiller',
    'MultiDirectionDistiller',
    'VisionLanguageModel',
]
