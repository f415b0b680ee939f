"""The norm and gate after a recurrence: RMS of groups of channels."""

from .interface import gated_norm

__all__ = ['gated_norm']
