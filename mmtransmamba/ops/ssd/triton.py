"""SSD on Triton kernels that are compiled when they first run.

See :mod:`mmtransmamba.ops.triton_runtime` for where they run. Operands are read in
their own dtype; states and sums are float32. Only the inputs are stored for the
backward pass, which computes the states again.
"""

from collections.abc import Mapping
from itertools import compress
from typing import Any

import torch
from torch import Tensor

from ..triton_runtime import refuses_length, refuses_place_or_dtype, unavailable
from .operator_form import SCHEMA, register_gradient

__all__ = ['refuses', 'scan', 'unavailable']

TAKES_HALF_PRECISION = True


def refuses(tensors: Mapping[str, Tensor | None]) -> str | None:
    """Why these tensors need another backend, or None."""
    reason = refuses_place_or_dtype('x', tensors)
    for name in ('x', 'B'):
        reason = reason or refuses_length(name, tensors[name], 31, dims=3)
    return reason


def scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    initial_state: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """See ``ssd_scan``; returns the output and the last state in float32."""
    return _scan_op(x, dt, A, B, C, D, initial_state)


def _last_state(x_BLHP: Tensor, B_BLGN: Tensor) -> Tensor:
    batch, _, heads, width = x_BLHP.shape
    shape = batch, heads, width, B_BLGN.shape[3]
    return x_BLHP.new_empty(shape, dtype=torch.float32)


@torch.library.custom_op(
    'mmtransmamba::ssd_triton',
    mutates_args=(),
    schema=f'({SCHEMA}) -> (Tensor, Tensor)',
)
def _scan_op(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    initial_state: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Forward kernels: output and last state."""
    from . import triton_launch

    if not x.numel():
        return x.new_empty(x.shape), _last_state(x, B)
    return triton_launch.forward(x, dt, A, B, C, D, initial_state)


@_scan_op.register_fake
def _(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    initial_state: Tensor | None,
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), _last_state(x, B)


@torch.library.custom_op(
    'mmtransmamba::ssd_triton_backward',
    mutates_args=(),
    schema=(
        f'(Tensor? grad_y, Tensor? grad_last_state, {SCHEMA}, bool[] wanted) '
        '-> Tensor[]'
    ),
)
def _scan_backward_op(*arguments: Any) -> list[Tensor]:
    """Backward kernels: the requested gradients of the seven tensors."""
    from . import triton_launch

    _, _, *operands, wanted = arguments
    if not operands[0].numel():
        return [torch.zeros_like(t) for t in compress(operands, wanted)]
    return triton_launch.backward(*arguments)


@_scan_backward_op.register_fake
def _(*arguments: Any) -> list[Tensor]:
    _, _, *operands, wanted = arguments
    return [t.new_empty(t.shape) for t in compress(operands, wanted)]


register_gradient(_scan_op, _scan_backward_op)
