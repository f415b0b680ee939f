from .causal_lm import CausalLM
from .language import LanguageDistiller
from .multi_direction import MultiDirectionDistiller

__all__ = ['CausalLM', 'LanguageDistiller', 'MultiDirectionDistiller']
