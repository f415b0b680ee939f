"""Selection of the parts of a hybrid that need more than low precision."""

from __future__ import annotations

import torch
from torch import nn

from mmtransmamba.models.language.mixers.attention_mixer import AttentionMixer


def float32_parameters(model: nn.Module) -> set[str]:
    """Names of the parameters that need more than half precision."""
    return {
        f'{prefix}.{name}' if prefix else name
        for prefix, module in model.named_modules()
        if isinstance(module, AttentionMixer)
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


def unquantized_modules(model: nn.Module) -> list[str]:
    """Names of the layers that quantisation should leave out.

    These are the convolutions and small projections of the mixers, see
    :attr:`AttentionMixer.unquantized`, and the heads (linear layers that are direct
    parts of the model), which transformers otherwise leaves out only if no list is
    given. Parameters such as ``A_log`` do not belong to a layer, and no method
    quantises them.

    Args:
        model: A hybrid decoder or encoder, also one on the meta device.

    Returns:
        A list for ``modules_to_not_convert`` or ``llm_int8_skip_modules``.
    """
    kept = []
    for prefix, mixer in model.named_modules():
        if isinstance(mixer, AttentionMixer):
            kept += [
                f'{prefix}.{name}'
                for name, module in mixer.named_modules()
                if name.partition('.')[0] in mixer.unquantized
                and isinstance(module, nn.Linear | nn.Conv1d)
            ]
    heads = model.named_children()
    return kept + [name for name, part in heads if isinstance(part, nn.Linear)]
