"""Tensor functions: selective scan, scan orders and the choice of backend."""

from . import backends, scan_order
from .selective_scan import selective_scan_directions, selective_scan_fn
from .ssd import ssd_scan, ssd_step

__all__ = [
    'backends',
    'scan_order',
    'selective_scan_directions',
    'selective_scan_fn',
    'ssd_scan',
    'ssd_step',
]
