"""What is inside a Runner's wrappers: the model, the scaler of the loss."""

from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn


def unwrapped_model(runner: Runner) -> nn.Module:
    """The Runner's model itself, even if DDP or a similar wrapper contains it."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def loss_scaler(runner: Runner) -> Any | None:
    """The ``GradScaler`` of a training; None if it does not scale its loss."""
    scaler = getattr(runner.optim_wrapper, 'loss_scaler', None)
    return scaler if scaler is not None and scaler.is_enabled() else None
