"""Holding a frozen model without making it part of the model that holds it."""

from __future__ import annotations

from torch import nn


class FrozenReference:
    """A reference to a module that is no submodule of the holder.

    So the module's weights are in no state dict, optimizer or gradient reduction,
    ``train()`` of the holder does not reach it, and a copy of the holder (an average
    of its weights, say) shares it instead of copying it.

    Args:
        module: The frozen module.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __deepcopy__(self, memo: dict) -> FrozenReference:
        return self
