from . import backbones, teachers
from .backbones import PlainMamba, VideoMamba, Vim, VMamba
from .checkpoint import CheckpointError, LoadReport, load_pretrained, read_state_dict

__all__ = [
    'CheckpointError',
    'LoadReport',
    'PlainMamba',
    'VMamba',
    'VideoMamba',
    'Vim',
    'backbones',
    'load_pretrained',
    'read_state_dict',
    'teachers',
]
