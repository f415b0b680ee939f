"""Linear maps and convolutions of mixers: fused for plain modules, else called.

Mixers read the weights of several modules at once, to compute them in one launch, or
apply a module's weight without its bias. Wrappers of modules (LoRA, quantisation,
offloading, parametrisations, hooks) only work if the module is called, and would be
bypassed. So weights are read from plain modules only; others are called.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.nn.modules import module as _module

from mmtransmamba.ops.causal_conv1d import causal_conv1d
from mmtransmamba.ops.depthwise_conv2d import depthwise_conv2d

# Hooks on all modules; torch 2.6 has no function that checks for any of them.
_GLOBAL_HOOKS = (
    _module._global_backward_pre_hooks,
    _module._global_backward_hooks,
    _module._global_forward_pre_hooks,
    _module._global_forward_hooks,
)
# The tensors that tracing and exporting substitute for parameters are plain, too.
_PLAIN_TENSORS = (nn.Parameter, Tensor, FakeTensor, FunctionalTensor)


def is_plain(module: nn.Module) -> bool:
    """Whether calling a module only applies its weight and bias."""
    return _is_unwrapped(module) and not any(_GLOBAL_HOOKS)


def _is_unwrapped(module: nn.Module) -> bool:
    """Like :func:`is_plain`, ignoring global hooks, such as those of counters."""
    return (
        type(module) in (nn.Linear, nn.Conv1d, nn.Conv2d)
        and type(module.weight) in _PLAIN_TENSORS
        and not (
            module._forward_hooks
            or module._forward_pre_hooks
            or module._backward_hooks
            or module._backward_pre_hooks
            or 'forward' in module.__dict__  # offloading replaces it
        )
    )


def without_bias(linear: nn.Module, x: Tensor) -> Tensor:
    """Apply a linear layer to ``x`` ``[..., C]`` without its bias."""
    if is_plain(linear):
        return F.linear(x, linear.weight)
    bias = linear(x.new_zeros(1, x.shape[-1]))[0]
    return linear(x) - bias


def bias_of(linear: nn.Module, x: Tensor) -> Tensor:
    """The bias that a linear layer adds to ``x`` ``[..., C]``, ``[D]``.

    For a wrapped layer, the bias is its output for zeros. Counters of module operations
    must not see this call, as it is not part of the model's work.
    """
    if _is_unwrapped(linear):
        return linear.bias
    return linear(x.new_zeros(1, x.shape[-1]))[0]


def stacked_linears(
    x_KBLC: Tensor, linears: Sequence[nn.Module]
) -> tuple[Tensor, Tensor | None]:
    """Map each direction's ``x`` ``[K, B, L, C]`` with its own linear layer.

    Returns:
        The outputs ``[K, B, L, D]``, and the biases ``[K, D]`` that must still be
        added; None if there are none, or if they are already added.
    """
    if all(map(is_plain, linears)):
        weight = torch.stack([linear.weight for linear in linears])
        product = torch.bmm(x_KBLC.flatten(1, 2), weight.transpose(1, 2))
        biases = [linear.bias for linear in linears]
        return (
            product.unflatten(1, x_KBLC.shape[1:3]),
            None if biases[0] is None else torch.stack(biases),
        )
    outputs = [linear(x) for linear, x in zip(linears, x_KBLC, strict=True)]
    return torch.stack(outputs), None


def stacked_causal_convs(
    x_BLD: Tensor, convs: Sequence[nn.Module], width: int, reverse: Sequence[bool]
) -> Tensor:
    """SiLU of ``x`` ``[B, L, D]``, convolved causally, or anti-causally if reversed.

    Args:
        x_BLD: Tokens.
        convs: A depthwise convolution per direction, without padding.
        width: Width of their kernels.
        reverse: See :func:`~mmtransmamba.ops.causal_conv1d.causal_conv1d`.

    Returns:
        ``[K, B, L, D]``.
    """
    if all(map(is_plain, convs)):
        return causal_conv1d(
            x_BLD,
            torch.stack([conv.weight for conv in convs]).squeeze(2),
            torch.stack([conv.bias for conv in convs]),
            reverse,
            silu=True,
        )
    outputs = []
    for conv, backward in zip(convs, reverse, strict=True):
        x = x_BLD.flip(1) if backward else x_BLD
        y_BLD = conv(F.pad(x.transpose(1, 2), (width - 1, 0))).transpose(1, 2)
        outputs.append(y_BLD.flip(1) if backward else y_BLD)
    return F.silu(torch.stack(outputs))


def grid_conv(x_BLD: Tensor, conv: nn.Module, grid: tuple[int, int]) -> Tensor:
    """SiLU of a grid's tokens ``[B, L, D]``, convolved depthwise with zero padding.

    Args:
        x_BLD: Tokens in raster order.
        conv: A depthwise 2D convolution that keeps the size of its map.
        grid: Rows and columns.

    Returns:
        ``[B, L, D]``.
    """
    if is_plain(conv):
        return depthwise_conv2d(x_BLD, conv.weight, conv.bias, grid, silu=True)
    y_BDHW = conv(x_BLD.transpose(1, 2).unflatten(2, grid))
    return F.silu(y_BDHW).flatten(2).transpose(1, 2)
