"""Depthwise causal convolution over a sequence, in one or several directions."""

from .interface import causal_conv1d

__all__ = ['causal_conv1d']
