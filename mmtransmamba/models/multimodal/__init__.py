"""Vision-language models: images and text in, text out."""

from .heads import AnswerHead, VisionLanguageHead

__all__ = ['AnswerHead', 'VisionLanguageHead']
