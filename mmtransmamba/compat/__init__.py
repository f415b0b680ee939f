"""Bridges over the breakages of third-party packages, all in one place.

Some packages this project builds on cannot be imported beside the current versions of
each other. Each module here has the bridges of one of them (:mod:`.bridging` says what
a bridge is). ``tests/test_compat`` fails for every bridge that is no longer needed
or no longer works. What else has no public name in a library is in :mod:`.private`.
"""

from . import mmaction, mmengine, mmpretrain, quiet
from .bridging import install_bridges
from .peft import announce_adapters
from .private import (
    accumulated_batches,
    active_ddp,
    is_fully_sharded,
    is_partitioned,
    is_resuming,
    is_sharded,
    known_scopes,
    model_classes,
    normalizes,
    run_load_hooks,
    set_inner_count,
    swaps_channels,
    unregistered_names,
)
from .quiet import quiet_logger
from .versions import TESTED, check_distributions, check_tested_versions, release

__all__ = [
    'TESTED',
    'accumulated_batches',
    'active_ddp',
    'announce_adapters',
    'check_distributions',
    'check_tested_versions',
    'install_bridges',
    'is_fully_sharded',
    'is_partitioned',
    'is_resuming',
    'is_sharded',
    'known_scopes',
    'mmaction',
    'mmengine',
    'mmpretrain',
    'model_classes',
    'normalizes',
    'quiet',
    'quiet_logger',
    'release',
    'run_load_hooks',
    'set_inner_count',
    'swaps_channels',
    'unregistered_names',
]
