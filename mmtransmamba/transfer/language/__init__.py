"""Turning pre-trained causal language models into Mamba hybrids."""

from .calibration import read_calibration
from .convert import INITS, convert_lm, hybrid_config, plan_conversion
from .ranking import LayerRanking, rank_layers
from .writer import write_model

__all__ = [
    'INITS',
    'LayerRanking',
    'convert_lm',
    'hybrid_config',
    'plan_conversion',
    'rank_layers',
    'read_calibration',
    'write_model',
]
