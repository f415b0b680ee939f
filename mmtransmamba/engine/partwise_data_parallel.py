"""Data parallelism for models that call backward more than once in an iteration."""

from __future__ import annotations

from typing import Any

from mmengine.dist import broadcast
from torch import nn

from mmtransmamba.engine.model_wrapper import ModelWrapper
from mmtransmamba.registry import MODEL_WRAPPERS


@MODEL_WRAPPERS.register_module()
class PartwiseDataParallel(ModelWrapper):
    """Data-parallel wrapper that exchanges gradients once, before the optimizer's step.

    PyTorch's DDP exchanges gradients during the single backward pass that it expects.
    Under DDP, a :class:`~mmtransmamba.transfer.LanguageDistiller` must therefore keep
    the graphs of all layers. Under this wrapper, it runs one backward pass per layer,
    as in a single process. Other models gain nothing, and train as under DDP.

    Args:
        module: Any model of mmengine.
        device_ids: Ignored; mmengine passes it to every wrapper.
    """

    def __init__(self, module: nn.Module, device_ids: Any = None) -> None:
        super().__init__(module)
        for tensor in module.state_dict().values():
            broadcast(tensor)
