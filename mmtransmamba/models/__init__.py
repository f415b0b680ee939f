from . import backbones, teachers
from .backbones import PlainMamba, VideoMamba, Vim
from .checkpoint import CheckpointError, LoadReport, load_pretrained, read_state_dict

__all__ = [
    'CheckpointError',
    'LoadReport',
    'PlainMamba',
    'VideoMamba',
    'Vim',
    'backbones',
    'load_pretrained',
    'read_state_dict',
    'teachers',
]
