"""Compiling a model whose weights will not change any more."""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import nn
from torch._inductor import config as inductor

from mmtransmamba.models.backbones.base import VisionBackbone
from mmtransmamba.ops.untraced import is_recorded


def compile_for_inference(model: nn.Module, **options: Any) -> nn.Module:
    """Compile a vision backbone with its weights as constants, in place.

    ``torch.compile`` alone keeps weights as inputs of the graph. As constants they are
    packed for the matrix products and convolutions, batch norms become part of the
    convolution before them, and the scan orders are computed once. The outputs differ
    in rounding only. The first pass of each image size compiles, which takes about a
    minute; gradients are not recorded.

    Args:
        model: A backbone of this package, or a model with one as ``backbone``, such as
            a classifier; only the backbone is compiled. Its weights can neither be
            loaded nor trained afterwards.
        **options: Other arguments of ``torch.compile``, such as ``mode``.

    Returns:
        The same model, in evaluation mode.

    Raises:
        TypeError: The model has no backbone of this package.
    """
    network = getattr(model, 'backbone', model)
    if not isinstance(network, VisionBackbone):
        raise TypeError(
            f'compile_for_inference takes a vision backbone of this package, or a '
            f'model with one as backbone, not {type(network).__name__}.'
        )
    model.eval()
    fix_weights(network, **options)
    return model


def fix_weights(network: nn.Module, **options: Any) -> None:
    """Compile a module in evaluation mode with its weights as constants, in place.

    Args:
        network: Any module that is one graph.
        **options: Other arguments of ``torch.compile``.
    """
    network._compiled_forward = torch.compile(network.forward, **options)
    # A bound method, so that a deep copy asks itself whether it is in training.
    network.forward = MethodType(_forward, network)
    network.register_load_state_dict_pre_hook(_refuse)


def _forward(network: nn.Module, *args: Any, **kwargs: Any) -> Any:
    if network.training or is_recorded():
        raise RuntimeError(
            f'{type(network).__name__} was compiled for inference, which fixed its '
            'weights; build or load it again to train or export it.'
        )
    # torch.compile(options=...) comes too late for this switch: the parameters are
    # already inputs of the traced graph.
    with torch.no_grad(), inductor.patch(freezing=True):
        return network._compiled_forward(*args, **kwargs)


def _refuse(network: nn.Module, *args: Any) -> None:
    raise RuntimeError(
        f'{type(network).__name__} was compiled for inference, which fixed its '
        'weights; load them into a new model.'
    )
