"""Token mixers that take the place of a decoder's attention."""

from __future__ import annotations

from torch import nn

from .mamba import MambaMixer
from .mamba2 import Mamba2Mixer

MIXERS: dict[str, type[nn.Module]] = {'mamba': MambaMixer, 'mamba2': Mamba2Mixer}

__all__ = ['MIXERS', 'Mamba2Mixer', 'MambaMixer']
