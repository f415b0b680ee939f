"""Depthwise causal convolution over a sequence, in one or several directions."""

from . import triton
from .interface import OP, causal_conv1d

__all__ = ['OP', 'causal_conv1d', 'triton']
