"""Autocast without loss scaling, on any device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from torch import nn

from mmtransmamba.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """Runs the model under bfloat16 autocast.

    mmengine's ``AmpOptimWrapper`` needs a GPU and always has a gradient scaler, which
    bfloat16 does not need.

    Args:
        dtype: ``'bfloat16'``.
        **kwargs: See mmengine's ``OptimWrapper``.

    Raises:
        ValueError: Another dtype.
    """

    def __init__(self, dtype: str = 'bfloat16', **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if dtype not in ('bfloat16', torch.bfloat16):
            raise ValueError(
                f"optim_wrapper.dtype={dtype!r} must be 'bfloat16' for an "
                'AutocastOptimWrapper; float16 needs the gradient scaler of '
                "type='AmpOptimWrapper', or with FSDP 'mmtransmamba.ScaledOptimWrapper'"
            )

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast around the forward pass."""
        device = get_device()
        with super().optim_context(model), torch.autocast(device, torch.bfloat16):
            yield
