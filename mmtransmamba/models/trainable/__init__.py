"""Transformers models as mmengine's Runner trains them."""

from .patch_classifier import PatchClassifier

__all__ = ['PatchClassifier']
