"""The model of a Runner without its wrapper."""

from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn


def unwrapped_model(runner: Runner) -> nn.Module:
    """The Runner's model itself, even if DDP or a similar wrapper contains it."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
