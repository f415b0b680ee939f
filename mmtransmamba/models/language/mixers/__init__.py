"""Token mixers that take the place of a decoder's attention."""

from .base import DecoderMixer
from .fields import build_mixer, complete, fields_of, mixer_class
from .inits import Fill, Init
from .mamba import MambaMixer
from .mamba2 import Mamba2Mixer

__all__ = [
    'DecoderMixer',
    'Fill',
    'Init',
    'Mamba2Mixer',
    'MambaMixer',
    'build_mixer',
    'complete',
    'fields_of',
    'mixer_class',
]
