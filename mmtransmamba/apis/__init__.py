"""Transfer from Python: see the functions' own modules."""

from .experiment import ExperimentResult, run_experiment

__all__ = ['ExperimentResult', 'run_experiment']
