"""Reference to a frozen model without making it a submodule."""

from __future__ import annotations

from torch import nn


class FrozenReference:
    """A reference to a module that is not a submodule of the holder.

    The module's weights are therefore in no state dict, optimizer or gradient
    reduction, ``train()`` of the holder does not reach it, and a copy of the holder
    (such as an average of its weights) shares it instead of copying it.

    Args:
        module: The frozen module.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __deepcopy__(self, memo: dict) -> FrozenReference:
        return self
