"""Training with FSDP2: parameters, gradients and optimizer states in parts."""

from .runner import FullyShardedRunner
from .wrapper import FullyShardedModel

__all__ = ['FullyShardedModel', 'FullyShardedRunner']
