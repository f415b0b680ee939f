"""Access to a model's last hidden states and head instead of its logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtransmamba.transfer.frozen import FrozenReference

_SCALES: dict[str, Callable[[float], float]] = {
    'logits_scaling': lambda value: 1 / value,
    'logit_scale': lambda value: value,
}
"""Fields of configs by which logits are scaled, and the factor."""


def head_of(model: nn.Module) -> nn.Linear:
    """The linear layer that computes a causal language model's logits.

    Raises:
        ValueError: The model has none whose weight can be used.
    """
    head = model.get_output_embeddings()
    # A subclass, such as a quantised or adapted layer, may compute something else.
    if type(head) is not nn.Linear:
        raise ValueError(
            f'the head of {type(model).__name__} is a {type(head).__module__}.'
            f'{type(head).__name__}; it must be a torch.nn.Linear without an adapter'
        )
    return head


class HeadInputs:
    """Runs a model up to its head.

    The first run compares one token's logits with the product with the head's weight.

    Args:
        model: Causal language model of transformers.
        shared: A copy of this object runs the same model, not a copy of it.

    Raises:
        ValueError: Its logits are not a linear function of its last hidden states.
    """

    def __init__(self, model: nn.Module, shared: bool = False) -> None:
        self._held = FrozenReference(model) if shared else model
        head_of(model)
        self.scale = 1.0
        for config in {id(c): c for c in _configs(model)}.values():
            for field, value in config.to_dict().items():
                if 'softcap' in field and 'attn' not in field and value is not None:
                    raise ValueError(
                        f'the logits of {type(model).__name__} are not linear: '
                        f'{field}={value}'
                    )
                if field in _SCALES and value is not None:
                    self.scale = _SCALES[field](value)
        self._compared = False

    @property
    def model(self) -> nn.Module:
        """The model."""
        held = self._held
        return held.module if isinstance(held, FrozenReference) else held

    def __call__(self, inputs: dict[str, Any]) -> Tensor:
        """Hidden states ``[B, L, C]``; multiplied by the head's weight, the logits.

        Args:
            inputs: The model's arguments, ``input_ids`` ``[B, L]`` and others.

        Raises:
            ValueError: The product differs from the logits.
        """
        head, seen = head_of(self.model), []

        def enter(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            seen.append(args[0])
            # The logits of one token cost little compared with those of all.
            return (args[0][:, -1:], *args[1:])

        handle = head.register_forward_pre_hook(enter)
        try:
            logits = self.model(**inputs, use_cache=False).logits
        finally:
            handle.remove()
        hidden = seen[0] if self.scale == 1 else seen[0] * self.scale
        if not self._compared:
            # A teacher apart returns logits to the device of its inputs.
            logits = logits.detach().to(hidden.device)
            self._compare(hidden.detach()[:, -1:], logits)
            self._compared = True
        return hidden

    @torch.no_grad()
    def _compare(self, hidden: Tensor, logits: Tensor) -> None:
        head = head_of(self.model)
        expected = F.linear(hidden, head.weight, head.bias).float()
        rounding = 64 * max(torch.finfo(t.dtype).eps for t in (hidden, logits))
        size = expected.abs().amax()
        if not (expected - logits.float()).abs().amax() <= rounding * size:
            raise ValueError(
                f'the logits of {type(self.model).__name__} are not what the weight of '
                'its head makes of its last hidden states'
            )


def _configs(model: nn.Module) -> list[Any]:
    return [model.config, model.config.get_text_config()]
