"""Conversion of pre-trained language and vision models to Mamba hybrids."""

from .calibration import read_calibration
from .conversion import convert, plan_conversion
from .encoder_spec import EncoderConversion
from .hybrid_config import hybrid_config
from .plain_vit import as_transformers
from .ranking import LayerRanking, rank_layers
from .spec import Conversion
from .writer import write_model

__all__ = [
    'Conversion',
    'EncoderConversion',
    'LayerRanking',
    'as_transformers',
    'convert',
    'hybrid_config',
    'plan_conversion',
    'rank_layers',
    'read_calibration',
    'write_model',
]
