"""Models for mmengine's Runner, trained directly or as students."""

from .base import TransformersModel
from .causal_lm import CausalLM
from .encoder_classifier import EncoderClassifier
from .patch_classifier import PatchClassifier
from .vision_language_model import VisionLanguageModel

__all__ = [
    'CausalLM',
    'EncoderClassifier',
    'PatchClassifier',
    'TransformersModel',
    'VisionLanguageModel',
]
