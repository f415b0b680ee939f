"""Token mixers that replace a vision encoder's attention."""

from .base import EncoderMixer
from .gated_delta_net import GatedDeltaNetEncoderMixer
from .mamba2 import Mamba2EncoderMixer

__all__ = ['EncoderMixer', 'GatedDeltaNetEncoderMixer', 'Mamba2EncoderMixer']
