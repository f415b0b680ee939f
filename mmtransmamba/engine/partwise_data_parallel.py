"""Data parallelism for models that call backward more than once in an iteration."""

from __future__ import annotations

from typing import Any

from mmengine.dist import broadcast
from torch import nn

from mmtransmamba.engine.model_wrapper import ModelWrapper
from mmtransmamba.registry import MODEL_WRAPPERS


@MODEL_WRAPPERS.register_module()
class PartwiseDataParallel(ModelWrapper):
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
        super().__init__(module)
        for tensor in module.state_dict().values():
            broadcast(tensor)
