from .answer import AnswerHead
from .base import VisionLanguageHead
from .reasoning import ReasoningHead

__all__ = ['AnswerHead', 'ReasoningHead', 'VisionLanguageHead']
