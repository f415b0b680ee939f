"""Turning pre-trained causal language models into Mamba hybrids."""

from .calibration import read_calibration
from .convert import convert_lm
from .plan import plan_conversion
from .ranking import LayerRanking, automatic_layers, rank_layers
from .student import hybrid_config
from .writer import write_model

__all__ = [
    'LayerRanking',
    'automatic_layers',
    'convert_lm',
    'hybrid_config',
    'plan_conversion',
    'rank_layers',
    'read_calibration',
    'write_model',
]
