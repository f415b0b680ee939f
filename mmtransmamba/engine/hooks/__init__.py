from .layer_weights import LayerWeightsHook
from .progress_bar import ProgressBarHook
from .save_student import SaveStudentHook
from .subclone_initializer import SubcloneInitializer
from .term_decay import TermDecayHook

__all__ = [
    'LayerWeightsHook',
    'ProgressBarHook',
    'SaveStudentHook',
    'SubcloneInitializer',
    'TermDecayHook',
]
