"""Base of wrappers of a model for several devices."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from torch import nn

from mmtransmamba.models.trainable.partial_backward import PartialBackward
from mmtransmamba.models.trainable.step_average import StepAverage


class ModelWrapper(nn.Module):
    """A wrapper that passes every call of a Runner on to its model.

    Args:
        module: The model.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def train_step(self, data: Any, optim_wrapper: OptimWrapper) -> dict:
        """The model's ``train_step``, with gradients averaged over the processes.

        Those of whole parameters, that is: FSDP averages those that it shards.
        """
        module = self.module
        if isinstance(module, StepAverage) or not isinstance(module, BaseModel):
            return module.train_step(data, optim_wrapper)
        backward = PartialBackward(optim_wrapper, mean_of_batches=True)
        with optim_wrapper.optim_context(module):
            data = module.data_preprocessor(data, True)
            losses = module._run_forward(data, mode='loss')
        loss, logs = module.parse_losses(losses)
        backward(loss)
        backward.step()
        return logs

    def val_step(self, data: Any) -> list:
        """See the model's ``val_step``."""
        return self.module.val_step(data)

    def test_step(self, data: Any) -> list:
        """See the model's ``test_step``."""
        return self.module.test_step(data)

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor | dict | list:
        """See the model's ``forward``."""
        return self.module(*args, **kwargs)
