from .answer_page import AnsweredQuestion, plot_answers
from .contact_sheet import FoundClip, plot_contact_sheet
from .curves import TOP1, RunScalars, plot_layer_weights, plot_runs, read_scalars
from .length_curves import plot_by_length, plot_tolerance

__all__ = [
    'TOP1',
    'AnsweredQuestion',
    'FoundClip',
    'RunScalars',
    'plot_answers',
    'plot_by_length',
    'plot_contact_sheet',
    'plot_layer_weights',
    'plot_runs',
    'plot_tolerance',
    'read_scalars',
]
