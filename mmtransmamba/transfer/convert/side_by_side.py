"""Attention and mixer of a layer side by side."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mmtransmamba.transfer.watch import output_projection


class Both(nn.Module):
    """Attention and mixer with one share for the whole layer.

    Args:
        attention, mixer: Of the layer.
        logit: Of the attention's share, a scalar.
    """

    def __init__(self, attention: nn.Module, mixer: nn.Module, logit: Tensor) -> None:
        super().__init__()
        self.attention, self.mixer, self.logit = attention, mixer, logit

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        gate = self.logit.sigmoid()
        attended = self.attention(*args, **kwargs)[0]
        mixed = self.mixer(*args, **kwargs)[0]
        return gate * attended + (1 - gate) * mixed, None


class SharedHeads(nn.Module):
    """Attention and mixer with a share for each key-value head.

    Args:
        attention, mixer: Both with all heads in front of the output projection.
        logits: Of the attention's share of each key-value head, ``[G]``; infinite ones
            choose one of both.
    """

    def __init__(self, attention: nn.Module, mixer: nn.Module, logits: Tensor) -> None:
        super().__init__()
        self.attention, self.mixer, self.logits = attention, mixer, logits

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        shares = self.logits.sigmoid()
        attended = self._weighted(self.attention, shares, args, kwargs)
        mixed = self._weighted(self.mixer, 1 - shares, args, kwargs)
        return attended + mixed, None

    def _weighted(
        self, module: nn.Module, shares: Tensor, args: Any, kwargs: Any
    ) -> Tensor:
        projection = output_projection(module)
        weights = shares.repeat_interleave(projection.in_features // len(shares))
        handle = projection.register_forward_pre_hook(
            lambda _, inputs: (inputs[0] * weights.to(inputs[0].dtype),)
        )
        try:
            output = module(*args, **kwargs)[0]
        finally:
            handle.remove()
        if projection.bias is not None:
            output = output - (1 - shares.mean()).to(output.dtype) * projection.bias
        return output
