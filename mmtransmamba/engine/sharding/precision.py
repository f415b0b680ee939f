"""The parameters that FSDP leaves whole, in their own precision."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import torch
from torch import nn

from mmtransmamba.models.language.precision import float32_parameters


def whole_parameters(
    model: nn.Module, dtype: torch.dtype | None
) -> dict[nn.Parameter, str]:
    """Parameters that each device keeps whole, with their names.

    FSDP does not shard scalars, and gathers the parameters of a block in one dtype.
    Where SSM parameters are float32 and the others are computed in half precision, the
    former stay whole. They are a small fraction of a model.

    Args:
        model: A model for mmengine.
        dtype: The precision that parameters are computed in; None for their own.
    """
    kinds = Counter()
    for parameter in model.parameters():
        kinds[parameter.dtype] += parameter.numel()
    main = kinds.most_common(1)[0][0]
    kept = set()
    if dtype is not None:
        kept = float32_parameters(model)
        # A distiller's terms compare features in float32.
        owned = getattr(model, 'terms', None)
        kept |= set() if owned is None else set(_names('terms', owned))
    return {
        parameter: name
        for name, parameter in model.named_parameters()
        if parameter.ndim == 0 or parameter.dtype != main or name in kept
    }


def _names(prefix: str, module: nn.Module) -> Iterable[str]:
    return (f'{prefix}.{name}' for name, _ in module.named_parameters())
