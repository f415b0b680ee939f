from .plain_mamba import PlainMamba
from .video_mamba import VideoMamba
from .vim import Vim
from .vmamba import VMamba
from .vrwkv import VRWKV

__all__ = ['PlainMamba', 'VMamba', 'VRWKV', 'VideoMamba', 'Vim']
