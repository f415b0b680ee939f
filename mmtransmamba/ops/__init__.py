"""Tensor functions: scans, WKV, scan orders and the choice of backend."""

from . import backends, scan_order
from .selective_scan import selective_scan_directions, selective_scan_fn
from .ssd import ssd_scan, ssd_step
from .wkv import bi_wkv, bi_wkv6

__all__ = [
    'backends',
    'bi_wkv',
    'bi_wkv6',
    'scan_order',
    'selective_scan_directions',
    'selective_scan_fn',
    'ssd_scan',
    'ssd_step',
]
