from .bad_samples import BadSamplesHook
from .branch_share import BranchShareHook
from .checkpoint import CheckpointHook
from .compile import CompileHook
from .layer_weights import LayerWeightsHook
from .non_finite import NonFiniteError, NonFiniteHook
from .progress_bar import ProgressBarHook
from .released_checkpoint import ReleasedCheckpointHook
from .save_student import SaveStudentHook
from .subclone_initializer import SubcloneInitializer
from .teacher_check import TeacherCheckHook
from .term_balance import TermBalanceHook
from .term_decay import TermDecayHook
from .term_gradients import TermGradientsHook, term_gradients

__all__ = [
    'BadSamplesHook',
    'BranchShareHook',
    'CheckpointHook',
    'CompileHook',
    'LayerWeightsHook',
    'NonFiniteError',
    'NonFiniteHook',
    'ProgressBarHook',
    'ReleasedCheckpointHook',
    'SaveStudentHook',
    'SubcloneInitializer',
    'TeacherCheckHook',
    'TermBalanceHook',
    'TermDecayHook',
    'TermGradientsHook',
    'term_gradients',
]
