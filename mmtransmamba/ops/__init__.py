"""Tensor functions: scans, WKV, scan orders and the choice of backend.

The backends of a function repeat its argument list on purpose: ``torch.library`` needs
the signature of each operator in full, and a reference must not share code with the
implementation that it checks.
"""

from . import backends, scan_order
from .both_ways import delta_rule_both_ways, ssd_both_ways
from .delta_rule import (
    gated_delta_rule,
    gated_delta_rule_step,
    kda,
    kda_step,
)
from .selective_scan import (
    selective_scan_directions,
    selective_scan_fn,
    selective_scan_step,
)
from .ssd import ssd_matrix, ssd_scan, ssd_step
from .wkv import bi_wkv, bi_wkv6

__all__ = [
    'backends',
    'bi_wkv',
    'bi_wkv6',
    'delta_rule_both_ways',
    'gated_delta_rule',
    'gated_delta_rule_step',
    'kda',
    'kda_step',
    'scan_order',
    'selective_scan_directions',
    'selective_scan_fn',
    'selective_scan_step',
    'ssd_both_ways',
    'ssd_matrix',
    'ssd_scan',
    'ssd_step',
]
