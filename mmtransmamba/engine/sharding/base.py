"""What wrappers of a model in parts have in common."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractContextManager

import torch
from mmengine.optim import OptimWrapper
from torch import nn

from mmtransmamba.engine.model_wrapper import ModelWrapper
from mmtransmamba.models.trainable.stages import group_of_parameters


class ShardedModel(ModelWrapper):
    """A model of which each device holds a part while it trains.

    :class:`~mmtransmamba.engine.sharding.FullyShardedRunner` calls :meth:`shard` when
    the weights are complete: initialised, inherited or loaded. Until then, the model is
    an ordinary one on the CPU.
    """

    @abstractmethod
    def shard(self, optim_wrapper: OptimWrapper, device: torch.device) -> None:
        """Distribute the model and the states of its optimizer.

        Args:
            optim_wrapper: Its optimizer has the model's parameters.
            device: This process's device.
        """

    @abstractmethod
    def whole(self, optim_wrapper: OptimWrapper) -> AbstractContextManager[None]:
        """Context in which the main process has all weights and states, on the CPU.

        All processes must enter it.
        """


def parameters_with_images(part: nn.Module | None) -> set[nn.Parameter]:
    """Parameters of a model of language that only batches with images use."""
    if part is None:
        return set()
    groups = group_of_parameters(part)
    return {
        parameter
        for name, parameter in part.named_parameters()
        if groups[name] in ('connector', 'vision')
    }
