"""Data parallelism for models that call backward more than once in an iteration."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import broadcast
from mmengine.optim import OptimWrapper
from torch import nn

from mmtransmamba.registry import MODEL_WRAPPERS


@MODEL_WRAPPERS.register_module()
class PartwiseDataParallel(nn.Module):
    """Data-parallel wrapper for models whose ``train_step`` averages gradients itself.

    PyTorch's DDP exchanges gradients during the single backward pass that it expects.
    Under DDP, a :class:`~mmtransmamba.transfer.LanguageDistiller` must therefore keep
    the graphs of all layers. Under this wrapper, it runs one backward pass per layer,
    as in a single process, and exchanges the gradients once, before the optimizer's
    step.

    Args:
        module: A model that trains with
            :class:`~mmtransmamba.models.trainable.partial_backward.PartialBackward`.
        device_ids: Ignored; mmengine passes it to every wrapper.
    """

    def __init__(self, module: nn.Module, device_ids: Any = None) -> None:
        super().__init__()
        self.module = module
        for tensor in module.state_dict().values():
            broadcast(tensor)

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
