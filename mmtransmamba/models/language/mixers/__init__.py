"""Token mixers that replace a decoder's attention."""

from .attention_mixer import AttentionMixer
from .base import DecoderMixer
from .discrete_mamba2 import DiscreteMamba2Mixer
from .fields import build_mixer, complete, fields_of, mixer_class, mixer_class_of
from .gated_delta_net import GatedDeltaNetMixer
from .head_mixers import (
    HeadBranch,
    HeadsGatedDeltaNetMixer,
    HeadsKDAMixer,
    HeadsMamba2Mixer,
    head_mixer,
)
from .inits import Fill, Init
from .kda import KDAMixer
from .mamba import MambaMixer
from .mamba2 import Mamba2Mixer
from .mamba_in_llama import MambaInLlamaMixer
from .sliding_window import SlidingWindowMixer
from .window_linear import (
    WindowBranch,
    WindowGatedDeltaNetMixer,
    WindowKDAMixer,
    WindowMamba2Mixer,
)

__all__ = [
    'AttentionMixer',
    'DecoderMixer',
    'DiscreteMamba2Mixer',
    'Fill',
    'GatedDeltaNetMixer',
    'HeadBranch',
    'HeadsGatedDeltaNetMixer',
    'HeadsKDAMixer',
    'HeadsMamba2Mixer',
    'Init',
    'KDAMixer',
    'Mamba2Mixer',
    'MambaInLlamaMixer',
    'MambaMixer',
    'SlidingWindowMixer',
    'WindowBranch',
    'WindowGatedDeltaNetMixer',
    'WindowKDAMixer',
    'WindowMamba2Mixer',
    'build_mixer',
    'complete',
    'fields_of',
    'head_mixer',
    'mixer_class',
    'mixer_class_of',
]
