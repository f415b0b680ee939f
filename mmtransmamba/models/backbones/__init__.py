from .plain_mamba import PlainMamba
from .video_mamba import VideoMamba
from .vim import Vim

__all__ = ['PlainMamba', 'VideoMamba', 'Vim']
