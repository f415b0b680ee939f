"""Vision encoders in which mixers in two directions replace attention."""

from mmtransmamba.models.language.precision import unquantized_modules

from .config import HybridEncoderFields
from .families import ENCODERS, hybrid_class, is_encoder_type
from .hybrid import HybridEncoderMixin, HybridHeadMixin
from .mixers import EncoderMixer

__all__ = [
    'ENCODERS',
    'EncoderMixer',
    'HybridEncoderFields',
    'HybridEncoderMixin',
    'HybridHeadMixin',
    'hybrid_class',
    'is_encoder_type',
    'unquantized_modules',
]
