"""Mamba-1's selective scan (S6): one file per backend behind one interface."""

from .interface import (
    selective_scan_directions,
    selective_scan_fn,
    selective_scan_step,
)

__all__ = ['selective_scan_directions', 'selective_scan_fn', 'selective_scan_step']
