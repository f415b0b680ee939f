"""The selective scan on Triton kernels that are compiled when they first run.

See :mod:`mmtransmamba.ops.triton_runtime` for where they run.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..triton_runtime import refuses_length, refuses_place_or_dtype, unavailable
from . import triton_plan as plan
from .operator_form import (
    BACKWARD_SCHEMA,
    FORWARD_SCHEMA,
    direction_operands,
    plain_operands,
    recording,
    register_gradient,
)

__all__ = ['refuses', 'scan', 'scan_directions', 'unavailable']

TAKES_HALF_PRECISION = True


def refuses(tensors: Mapping[str, Tensor | None]) -> str | None:
    """Why these tensors need another backend, or None."""
    u, A = tensors['u'], tensors['A']
    reason = refuses_place_or_dtype('u', tensors)
    if reason is not None:
        return reason
    if A.shape[-1] > plan.MAX_STATES:
        return f'it takes at most {plan.MAX_STATES} states, A has {A.shape[-1]}'
    for name in ('B', 'C'):
        if tensors[name].dim() == 2:
            return f'{name} of shape [D, N], constant over time, is not implemented'
    return refuses_length('u', u, 31)


def scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> tuple[Tensor, Tensor]:
    """See ``selective_scan_fn``; returns the output and the last state."""
    A, B, C, D, delta_bias = _float32(A, B, C, D, delta_bias)
    # Several programs share the states of a channel: the gate is applied to their sum.
    gate = z if A.shape[1] > plan.STATES_IN_REGISTERS else None
    z = z if gate is None else None
    operands = plain_operands(u, delta, A, B, C, D, z, delta_bias)
    y, _, last_state, _ = _scan_op(
        *operands, None, None, False, delta_softplus, recording(*operands)
    )
    if gate is not None:
        y = (y * F.silu(gate.float())).to(u.dtype)
    return y, last_state


def scan_directions(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    order: Tensor,
    permute_params: bool,
    tap_index: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> tuple[Tensor, Tensor | None]:
    """See ``selective_scan_directions``."""
    A, B, C, D, delta_bias = _float32(A, B, C, D, delta_bias)
    operands = direction_operands(u, delta, A, B, C, D, delta_bias)
    flags = permute_params, delta_softplus, recording(*operands)
    y, taps, _, _ = _scan_op(*operands, order, tap_index, *flags)
    return y, None if tap_index is None else taps


def _float32(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """The small operands in float32: half precision would be converted per channel."""
    return tuple(None if x is None else x.float() for x in tensors)


@torch.library.custom_op(
    'mmtransmamba::selective_scan_triton', mutates_args=(), schema=FORWARD_SCHEMA
)
def _scan_op(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The forward pass; see ``operator_form``."""
    from . import triton_launch

    return triton_launch.forward(*arguments)


@_scan_op.register_fake
def _(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    *rest: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    *_, order, tap_index, _, _, keep_states = rest
    batch, _, channels, length = u.shape
    K, states = 1 if order is None else order.shape[0], A.shape[2]
    small = dict(dtype=torch.float32)
    y = u.new_empty(batch, length, channels).transpose(1, 2)
    taps = u.new_empty(0)
    if tap_index is not None:
        taps = u.new_empty(batch, K, tap_index.shape[1], channels).transpose(2, 3)
    last_state = u.new_empty(0, **small)
    if order is None:
        last_state = u.new_empty(batch, states, channels, **small).transpose(1, 2)
    kept = 0
    if keep_states:
        kept = -(-length // plan.checkpoint_steps(states)) - 1
    return y, taps, last_state, u.new_empty(batch, K, kept, states, channels, **small)


@torch.library.custom_op(
    'mmtransmamba::selective_scan_triton_backward',
    mutates_args=(),
    schema=BACKWARD_SCHEMA,
)
def _scan_backward_op(*arguments: Any) -> list[Tensor]:
    """The backward pass; see ``operator_form``."""
    from . import triton_launch

    return triton_launch.backward(*arguments)


@_scan_backward_op.register_fake
def _(
    grad_y: Tensor | None,
    grad_taps: Tensor | None,
    grad_last_state: Tensor | None,
    *rest: Any,
) -> list[Tensor]:
    operands, wanted = rest[:8], rest[-1]
    grads = []
    for i, (x, want) in enumerate(zip(operands, wanted, strict=True)):
        if want and i in (0, 1, 6):  # u, delta and z are stored channels last
            grads.append(x.new_empty(x.transpose(-1, -2).shape).transpose(-1, -2))
        elif want:
            grads.append(x.new_empty(x.shape))
    return grads


register_gradient(_scan_op, _scan_backward_op)
