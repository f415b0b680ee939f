"""Base of wrappers of a model for several devices."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.optim import OptimWrapper
from torch import nn


class ModelWrapper(nn.Module):
    """A wrapper that passes every call of a Runner on to its model.

    Args:
        module: The model.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def train_step(self, data: Any, optim_wrapper: OptimWrapper) -> dict:
        """See the model's ``train_step``."""
        return self.module.train_step(data, optim_wrapper)

    def val_step(self, data: Any) -> list:
        """See the model's ``val_step``."""
        return self.module.val_step(data)

    def test_step(self, data: Any) -> list:
        """See the model's ``test_step``."""
        return self.module.test_step(data)

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor | dict | list:
        """See the model's ``forward``."""
        return self.module(*args, **kwargs)
