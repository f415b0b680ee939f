from .layer_weights import LayerWeightsHook
from .progress_bar import ProgressBarHook

__all__ = ['LayerWeightsHook', 'ProgressBarHook']
