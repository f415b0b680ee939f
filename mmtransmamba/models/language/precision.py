"""Selection of the parameters of a hybrid that stay in float32."""

from __future__ import annotations

import torch
from torch import nn

from mmtransmamba.models.language.mixers import DecoderMixer


def float32_parameters(model: nn.Module) -> set[str]:
    """Names of the parameters that need more than half precision."""
    return {
        f'{prefix}.{name}' if prefix else name
        for prefix, module in model.named_modules()
        if isinstance(module, DecoderMixer)
        for name, _ in module.named_parameters()
        if module.keeps_float32(name)
    }


def cast_parameters(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Cast a model's parameters to a dtype, SSM parameters to float32, in place."""
    kept = float32_parameters(model)
    for name, parameter in model.named_parameters():
        wanted = torch.float32 if name in kept else dtype
        parameter.data = parameter.data.to(wanted)
    return model
