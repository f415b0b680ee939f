"""Parameters and FLOPs of a model, including scans."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from mmtransmamba.ops import causal_conv1d  # noqa: F401  (it defines its op)
from mmtransmamba.ops.backends import use_backend
from mmtransmamba.ops.flops import FORMULAS
from mmtransmamba.utils.evaluation_mode import evaluating


def _causal_conv1d(x: Sequence[int], taps: Sequence[int], *_: Any, **__: Any) -> int:
    """One multiply-add per channel, direction, tap and step that the tap reads from."""
    batch, length, channels = x
    width, directions, _ = taps
    steps = sum(max(0, length - lag) for lag in range(width))
    return batch * channels * directions * steps


def _depthwise(
    x: Sequence[int],
    taps: Sequence[int],
    bias: Sequence[int] | None,
    height: int,
    row: int,
    *_: Any,
    **__: Any,
) -> int:
    """One multiply-add per channel, tap and cell, as for a ``conv2d`` with padding.

    In a causal convolution those of the steps that the tap reads from.
    """
    batch, length, channels = x
    kernels, tap_rows, tap_columns, _ = taps
    if height > 1 or row:
        return batch * channels * length * kernels * tap_rows * tap_columns
    return _causal_conv1d(x, (tap_columns, kernels, channels))


_MULTIPLY_ADDS = {
    torch.ops.mmtransmamba.depthwise: _depthwise,
    torch.ops.mmtransmamba.causal_conv1d: _causal_conv1d,
    torch.ops.mmtransmamba.causal_conv1d_triton: _causal_conv1d,
}


def _attention(
    query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any
) -> int:
    """The two matrix products of attention, those that a mask hides included."""
    *batch, queries, channels = query
    return 2 * math.prod(batch) * queries * key[-2] * (channels + value[-1])


def _attention_backward(_: Sequence[int], *operands: Any, **options: Any) -> int:
    return 2 * _attention(*operands, **options)


# torch counts the fused attention of CUDA only.
_CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        _attention_backward
    ),
}


@dataclass
class Complexity:
    """The cost of a model.

    A multiplication and its addition count as one, as papers on vision models report
    FLOPs; scans count as in :mod:`mmtransmamba.ops.flops`. Included are matrix
    products, convolutions, attention and scans; not norms, activations and sums.

    Attributes:
        params: Number of parameters.
        flops: FLOPs of one forward pass.
        scan_flops: The part of them that belongs to scans.
        modules: Parameters and FLOPs by module name; ``''`` is the model.
    """

    params: int
    flops: int
    scan_flops: int
    modules: dict[str, tuple[int, int]]


def count_complexity(
    model: nn.Module, shape: Sequence[int], **kwargs: Any
) -> Complexity:
    """Count the cost of a model for an input of a given shape.

    The model runs on the meta device, where nothing is computed, whatever its own
    device; the model is not changed. The count does not depend on the backend of the
    scans.

    Args:
        model: A model whose ``forward`` takes one tensor.
        shape: Shape of that tensor, including the batch.
        **kwargs: Other arguments of ``forward``.
    """
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    tensors = {name: tensor.to('meta') for name, tensor in tensors.items()}
    counter = flop_counter()
    with evaluating(model), torch.no_grad(), use_backend('shapes'), counter:
        inputs = torch.empty(shape, device='meta')
        functional_call(model, tensors, (inputs,), kwargs)

    counts = {key: _flops(ops) for key, ops in counter.get_flop_counts().items()}
    root = type(model).__name__
    modules = {}
    # Children first: the cost of a container that is never called is that of its
    # children.
    for name, module in reversed(list(model.named_modules())):
        prefix, key = (f'{name}.', f'{root}.{name}') if name else ('', 'Global')
        children = (prefix + child for child, _ in module.named_children())
        inside = (modules.get(child, (0, 0)) for child in children)
        flops = sum(counts[key]) if key in counts else sum(f for _, f in inside)
        modules[name] = sum(p.numel() for p in module.parameters()), flops
    modules = {name: modules[name] for name, _ in model.named_modules()}
    others, scans = counts.get('Global', (0, 0))
    return Complexity(modules[''][0], others + scans, scans, modules)


def flop_counter() -> FlopCounterMode:
    """A counter that knows the scans; see :func:`counted`."""
    custom = FORMULAS | _MULTIPLY_ADDS | _CPU_ATTENTION
    return FlopCounterMode(display=False, custom_mapping=custom)


def counted(counter: FlopCounterMode) -> int:
    """FLOPs that a counter has seen so far, as :class:`Complexity` counts them."""
    return sum(_flops(counter.get_flop_counts().get('Global', {})))


def _flops(ops: dict[Any, int]) -> tuple[int, int]:
    """FLOPs of a module outside and inside its scans."""
    scans = sum(count for op, count in ops.items() if op in FORMULAS)
    single = sum(count for op, count in ops.items() if op in _MULTIPLY_ADDS)
    # torch counts multiplication and addition separately.
    return (sum(ops.values()) - scans - single) // 2 + single, scans
