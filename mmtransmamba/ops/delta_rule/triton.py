"""The gated delta rule on Triton kernels that are compiled when they first run.

See :mod:`mmtransmamba.ops.triton_runtime` for where they run. Operands are read in
their own dtype; sums and the state are float32. Only the inputs are stored for the
backward pass, which computes the states of the chunks again. Differentiable once.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..triton_runtime import refuses_place_or_dtype, unavailable
from . import triton_plan as plan
from .operator_form import OPERAND_SCHEMA, OPERANDS

__all__ = ['refuses', 'scan', 'unavailable']

TAKES_HALF_PRECISION = True


def refuses(tensors: Mapping[str, Tensor | None]) -> str | None:
    """Why these tensors need another backend, or None."""
    reason = refuses_place_or_dtype('v', tensors)
    if reason is not None:
        return reason
    keys = tensors['q'].shape[-1]
    if keys > plan.MAX_KEYS:
        return f'it takes at most {plan.MAX_KEYS} key channels, q has {keys}'
    return None


def scan(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """See ``gated_delta_rule`` and ``kda``; returns the output and the last state."""
    return _scan_op(q, k, v, g, beta, initial_state, scale)


@torch.library.custom_op(
    'mmtransmamba::delta_rule_triton',
    mutates_args=(),
    schema=f'({OPERAND_SCHEMA}) -> (Tensor, Tensor)',
)
def _scan_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Forward kernels: output and last state."""
    from . import triton_launch

    if not v.numel():
        return _empty_outputs(q, v)
    return triton_launch.forward(q, k, v, g, beta, initial_state, scale)


@_scan_op.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    return _empty_outputs(q, v)


@torch.library.custom_op(
    'mmtransmamba::delta_rule_triton_backward',
    mutates_args=(),
    schema=f'(Tensor? grad_y, Tensor? grad_last_state, {OPERAND_SCHEMA}) -> Tensor[]',
)
def _scan_backward_op(
    grad_y: Tensor | None, grad_last_state: Tensor | None, *rest: Any
) -> list[Tensor]:
    """Backward kernels: the gradients of the operands that are there."""
    from . import triton_launch

    if not rest[2].numel():
        return _empty_gradients(rest)
    return triton_launch.backward(grad_y, grad_last_state, *rest)


@_scan_backward_op.register_fake
def _(
    grad_y: Tensor | None, grad_last_state: Tensor | None, *rest: Any
) -> list[Tensor]:
    return _empty_gradients(rest)


def _empty_outputs(q_BLGK: Tensor, v_BLHV: Tensor) -> tuple[Tensor, Tensor]:
    batch, _, heads, values = v_BLHV.shape
    state = batch, heads, q_BLGK.shape[3], values
    return v_BLHV.new_empty(v_BLHV.shape), v_BLHV.new_empty(state, dtype=torch.float32)


def _empty_gradients(arguments: tuple[Any, ...]) -> list[Tensor]:
    operands = arguments[: len(OPERANDS)]
    return [x.new_empty(x.shape) for x in operands if x is not None]


def _setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    *operands, ctx.scale = inputs
    ctx.save_for_backward(*operands)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, *grad_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
    operands = ctx.saved_tensors
    grads = iter(_scan_backward_op(*grad_outputs, *operands, ctx.scale))
    return *(None if x is None else next(grads) for x in operands), None


_scan_op.register_autograd(_backward, setup_context=_setup_context)
