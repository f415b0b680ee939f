from mmtransmamba.compat import check_tested_versions

# Checked first, because untested versions may fail in the imports that follow.
check_tested_versions()

from . import backbones, folders, multimodal, retrieval, teachers, trainable, vision
from .backbones import VRWKV, PlainMamba, VideoMamba, Vim, VMamba
from .checkpoint import CheckpointError, LoadReport, load_pretrained, read_state_dict

__all__ = [
    'CheckpointError',
    'LoadReport',
    'PlainMamba',
    'VMamba',
    'VRWKV',
    'VideoMamba',
    'Vim',
    'backbones',
    'folders',
    'load_pretrained',
    'multimodal',
    'read_state_dict',
    'retrieval',
    'teachers',
    'trainable',
    'vision',
]
