"""The gated norm on Triton kernels that are compiled when they first run.

See :mod:`mmtransmamba.ops.triton_runtime` for where they run. Operands are read in
their own dtype and computed in float32. Differentiable once.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..triton_runtime import refuses_place_or_dtype, unavailable

__all__ = ['normalize', 'refuses', 'unavailable']

MAX_GROUP = 2**12
"""A group is one row of a tile; a longer one would not fit into registers."""


def refuses(tensors: Mapping[str, Tensor | None]) -> str | None:
    """Why these tensors need another backend, or None."""
    reason = refuses_place_or_dtype('y', tensors)
    if reason is not None:
        return reason
    group = tensors['group'].shape[-1]
    if group > MAX_GROUP:
        return f'it takes groups of at most {MAX_GROUP} channels, these have {group}'
    return None


def normalize(
    y: Tensor,
    z: Tensor | None,
    weight: Tensor,
    group: int,
    eps: float,
    gate_first: bool,
    activation: str,
    dtype: torch.dtype,
) -> Tensor:
    """See ``gated_norm``."""
    rows = (-1, y.shape[-1])
    gate = None if z is None else z.reshape(rows)
    kind = (group, eps, gate_first, activation == 'silu')
    return _norm_op(y.reshape(rows), gate, weight, *kind, dtype).view(y.shape)


_SCHEMA = (
    'Tensor y, Tensor? z, Tensor weight, int group, float eps, bool gate_first, '
    'bool silu'
)


@torch.library.custom_op(
    'mmtransmamba::gated_norm_triton',
    mutates_args=(),
    schema=f'({_SCHEMA}, ScalarType dtype) -> Tensor',
)
def _norm_op(
    y: Tensor,
    z: Tensor | None,
    weight: Tensor,
    group: int,
    eps: float,
    gate_first: bool,
    silu: bool,
    dtype: torch.dtype,
) -> Tensor:
    """Forward kernel: ``[M, D]``."""
    from . import triton_launch

    out = y.new_empty(y.shape, dtype=dtype)
    if y.numel():
        triton_launch.forward(y, z, weight, group, eps, gate_first, silu, out)
    return out


@_norm_op.register_fake
def _(
    y: Tensor,
    z: Tensor | None,
    weight: Tensor,
    group: int,
    eps: float,
    gate_first: bool,
    silu: bool,
    dtype: torch.dtype,
) -> Tensor:
    return y.new_empty(y.shape, dtype=dtype)


@torch.library.custom_op(
    'mmtransmamba::gated_norm_triton_backward',
    mutates_args=(),
    schema=f'(Tensor grad, {_SCHEMA}) -> (Tensor, Tensor, Tensor)',
)
def _norm_backward_op(
    grad: Tensor,
    y: Tensor,
    z: Tensor | None,
    weight: Tensor,
    group: int,
    eps: float,
    gate_first: bool,
    silu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Backward kernel: the gradients of y, z (empty without one) and weight."""
    from . import triton_launch

    outputs = _empty_gradients(y, z, weight)
    if not y.numel():
        outputs[2].zero_()
        return outputs
    dy, dz, _ = outputs
    dw = triton_launch.backward(
        grad, y, z, weight, group, eps, gate_first, silu, dy, dz
    )
    return dy, dz, dw


@_norm_backward_op.register_fake
def _(
    grad: Tensor,
    y: Tensor,
    z: Tensor | None,
    weight: Tensor,
    group: int,
    eps: float,
    gate_first: bool,
    silu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return _empty_gradients(y, z, weight)


def _empty_gradients(
    y: Tensor, z: Tensor | None, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    dz = y.new_empty(0) if z is None else z.new_empty(z.shape)
    return y.new_empty(y.shape), dz, weight.new_empty(weight.shape)


def _setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
    y, z, weight, *kind = inputs
    ctx.kind = kind[:-1]
    ctx.save_for_backward(y, z, weight)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    y, z, weight = ctx.saved_tensors
    dy, dz, dw = _norm_backward_op(grad, y, z, weight, *ctx.kind)
    return dy, None if z is None else dz, dw, *(None for _ in range(5))


_norm_op.register_autograd(_backward, setup_context=_setup_context)
