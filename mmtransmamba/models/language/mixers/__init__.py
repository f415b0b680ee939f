"""Token mixers that replace a decoder's attention."""

from .base import DecoderMixer
from .fields import build_mixer, complete, fields_of, mixer_class
from .gated_delta_net import GatedDeltaNetMixer
from .inits import Fill, Init
from .kda import KDAMixer
from .mamba import MambaMixer
from .mamba2 import Mamba2Mixer
from .sliding_window import SlidingWindowMixer

__all__ = [
    'DecoderMixer',
    'Fill',
    'GatedDeltaNetMixer',
    'Init',
    'KDAMixer',
    'Mamba2Mixer',
    'MambaMixer',
    'SlidingWindowMixer',
    'build_mixer',
    'complete',
    'fields_of',
    'mixer_class',
]
