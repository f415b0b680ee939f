"""Running whole experiments from Python."""

from .experiment import ExperimentResult, run_experiment

__all__ = ['ExperimentResult', 'run_experiment']
