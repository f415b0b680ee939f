"""Models whose linear layers are quantised."""

import warnings

import torch
from torch import nn

from mmtransmamba.models.language import unquantized_modules


def dynamically_quantised(model: nn.Module) -> nn.Module:
    """A copy with 8-bit linear layers, except those that must not be quantised."""
    left_out = set(unquantized_modules(model))
    chosen = {
        name: torch.ao.quantization.default_dynamic_qconfig
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name not in left_out
    }
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return torch.ao.quantization.quantize_dynamic(model, chosen, torch.qint8)
