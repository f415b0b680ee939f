from . import backbones, teachers
from .backbones import PlainMamba
from .checkpoint import CheckpointError, LoadReport, load_pretrained, read_state_dict

__all__ = [
    'CheckpointError',
    'LoadReport',
    'PlainMamba',
    'backbones',
    'load_pretrained',
    'read_state_dict',
    'teachers',
]
