"""One HTML file about a training run, viewable in a browser without a network."""

from .page import write_report
from .reading import Run, read_run

__all__ = ['Run', 'read_run', 'write_report']
