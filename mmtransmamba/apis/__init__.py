"""Whole experiments, and finding videos, from Python."""

from .experiment import ExperimentResult, run_experiment
from .video_index import Retriever, VideoIndex, index_folder

__all__ = [
    'ExperimentResult',
    'Retriever',
    'VideoIndex',
    'index_folder',
    'run_experiment',
]
