"""Mamba-2's state space duality (SSD): one file per backend behind one interface."""

from .interface import ssd_scan, ssd_step
from .matrix import ssd_matrix

__all__ = ['ssd_matrix', 'ssd_scan', 'ssd_step']
