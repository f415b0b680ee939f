"""Whole experiments, exports, video search, and conversations about images."""

from .experiment import ExperimentResult, run_experiment
from .export import ExportReport, export_model, load_for_export
from .video_index import Retriever, VideoIndex, index_folder
from .vlm import VisionLanguageChat

__all__ = [
    'ExperimentResult',
    'ExportReport',
    'Retriever',
    'VideoIndex',
    'VisionLanguageChat',
    'export_model',
    'index_folder',
    'load_for_export',
    'run_experiment',
]
