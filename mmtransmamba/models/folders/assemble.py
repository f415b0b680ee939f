"""Building a decoder from its tensors, without random initialisation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from mmtransmamba.models.checkpoint import CheckpointError
from mmtransmamba.models.fit import check_depth, check_weights


def assemble(
    model_cls: type[nn.Module], config: Any, tensors: Iterable[tuple[str, Tensor]]
) -> nn.Module:
    """Build a language or vision-language model from given tensors.

    Args:
        model_cls: A transformers class.
        config: Its config.
        tensors: Every parameter by name; tied ones once.

    Raises:
        CheckpointError: A tensor is missing or not part of the model, a shape differs,
            or a weight consists of integers or has NaN or infinity.
    """
    tensors = dict(tensors)
    check_depth(config, tensors, model_cls.__name__)
    check_weights(tensors, model_cls.__name__)
    with torch.device('meta'):
        model = model_cls(config)
    try:
        result = model.load_state_dict(tensors, strict=False, assign=True)
    except RuntimeError as error:
        raise CheckpointError(str(error)) from error
    missing = set(result.missing_keys) - set(model.all_tied_weights_keys)
    for names, what in (
        (missing, 'is missing'),
        (result.unexpected_keys, 'has no place in it'),
    ):
        if names:
            raise CheckpointError(f'{model_cls.__name__}: {sorted(names)[0]} {what}.')
    # Buffers computed from the config are not saved: rotary frequencies, and the
    # position ids of a vision tower.
    for module in model.modules():
        if getattr(getattr(module, 'inv_freq', None), 'is_meta', False):
            fresh = type(module)(config=module.config)
            module._buffers.update(fresh._buffers)
            if hasattr(fresh, 'attention_scaling'):
                module.attention_scaling = fresh.attention_scaling
    for name, buffer in list(model.named_buffers()):
        if buffer.is_meta and name.endswith('position_ids'):
            owner = model.get_submodule(name.rpartition('.')[0])
            owner.position_ids = torch.arange(buffer.shape[-1]).expand(buffer.shape)
    left = [name for name, buffer in model.named_buffers() if buffer.is_meta]
    if left:
        raise CheckpointError(f'{model_cls.__name__}: {left[0]} has no value.')
    model.tie_weights()
    return model.eval()
