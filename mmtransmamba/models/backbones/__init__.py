from .plain_mamba import PlainMamba
from .video_mamba import VideoMamba
from .vim import Vim
from .vmamba import VMamba

__all__ = ['PlainMamba', 'VMamba', 'VideoMamba', 'Vim']
