"""Training with parameters, gradients and optimizer states in parts."""

from .runner import FullyShardedRunner
from .wrapper import FullyShardedModel
from .zero import ZeroModel, ZeroStrategy

__all__ = ['FullyShardedModel', 'FullyShardedRunner', 'ZeroModel', 'ZeroStrategy']
