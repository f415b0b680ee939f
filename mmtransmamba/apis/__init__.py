"""Whole experiments, finding videos, and talking about images, from Python."""

from .experiment import ExperimentResult, run_experiment
from .video_index import Retriever, VideoIndex, index_folder
from .vlm import VisionLanguageChat

__all__ = [
    'ExperimentResult',
    'Retriever',
    'VideoIndex',
    'VisionLanguageChat',
    'index_folder',
    'run_experiment',
]
