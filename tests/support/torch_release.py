"""Marks of tests that need a later PyTorch than the oldest supported one."""

import pytest
import torch

from mmtransmamba.apis.export_formats import NEEDED_TORCH
from mmtransmamba.compat import release

exports = pytest.mark.skipif(
    release(torch.__version__) < NEEDED_TORCH,
    reason=f'PyTorch {torch.__version__} does not export these models',
)

cpu_shards = pytest.mark.skipif(
    release(torch.__version__) < (2, 9),
    reason=f'FSDP2 of PyTorch {torch.__version__} is not for CPUs',
)
