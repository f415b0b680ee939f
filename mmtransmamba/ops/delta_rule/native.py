"""The gated delta rule on the compiled CPU kernels, as a torch custom op.

Shape suffixes: B batch, L steps, G heads of q and k, H heads, K key channels, V value
channels, C chunks.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..native import library
from ..native.library import refuses_place_or_dtype, unavailable
from .operator_form import OPERAND_SCHEMA, OPERANDS

__all__ = ['refuses', 'scan', 'unavailable']

WARN_WHEN_UNAVAILABLE = True


def refuses(tensors: Mapping[str, Tensor | None]) -> str | None:
    """Why these tensors need another backend, or None."""
    return refuses_place_or_dtype('v', tensors)


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
    operands = (q, k, v, g, beta, initial_state)
    recording = torch.is_grad_enabled() and any(
        operand is not None and operand.requires_grad for operand in operands
    )
    y, last_state, _ = _scan_op(*operands, scale, recording)
    return y, last_state


def _chunk(keys: int) -> int:
    """Steps between two stored states.

    The stored states take ``K / chunk`` times the memory of ``v``. The states of one
    chunk, which the backward pass recomputes, must fit a second-level cache.
    """
    return 32 if keys <= 64 else 64


def _empty_outputs(
    q_BLGK: Tensor, v_BLHV: Tensor, keep_states: bool
) -> tuple[Tensor, Tensor, Tensor]:
    batch, length, heads, values = v_BLHV.shape
    keys = q_BLGK.shape[3]
    kept = (length - 1) // _chunk(keys) if keep_states else 0
    return (
        v_BLHV.new_empty(v_BLHV.shape),
        v_BLHV.new_empty(batch, heads, keys, values),
        v_BLHV.new_empty(batch, heads, kept, keys, values),
    )


def _arguments(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None,
    scale: float,
) -> library.DeltaRuleArgs:
    batch, length, heads, values = v.shape
    groups, keys = q.shape[2:]
    return library.DeltaRuleArgs(
        batch=batch,
        length=length,
        heads=heads,
        groups=groups,
        keys=keys,
        values=values,
        chunk=_chunk(keys),
        channel_gate=g.dim() == 4,
        scale=scale,
        q=library.View.of(q),
        k=library.View.of(k),
        v=library.View.of(v),
        gate=library.View.of(g),
        beta=library.View.of(beta),
        initial_state=library.View.of(initial_state),
    )


def _with_rows(operands: Sequence[Tensor | None]) -> list[Tensor | None]:
    return [
        x if name in ('g', 'beta') else library.rows(x)
        for name, x in zip(OPERANDS, operands, strict=True)
    ]


@torch.library.custom_op(
    'mmtransmamba::delta_rule',
    mutates_args=(),
    schema=f'({OPERAND_SCHEMA}, bool keep_states) -> (Tensor, Tensor, Tensor)',
)
def _scan_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None,
    scale: float,
    keep_states: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Forward kernel: output, last state and the states before each chunk."""
    outputs = y, last_state, checkpoints = _empty_outputs(q, v, keep_states)
    if y.numel() == 0:
        return outputs
    # These must stay alive during the call below.
    operands = _with_rows((q, k, v, g, beta, initial_state))
    args = _arguments(*operands, scale)
    args.y = library.View.of(y)
    args.last_state = library.View.of(last_state)
    args.checkpoints = library.pointer(checkpoints)
    library.load().run('delta_rule', 'forward', args)
    return outputs


@_scan_op.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None,
    scale: float,
    keep_states: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return _empty_outputs(q, v, keep_states)


@torch.library.custom_op(
    'mmtransmamba::delta_rule_backward',
    mutates_args=(),
    schema=(
        f'(Tensor? grad_y, Tensor? grad_last_state, {OPERAND_SCHEMA}, '
        'Tensor checkpoints, bool[] wanted) -> Tensor[]'
    ),
)
def _scan_backward_op(
    grad_y: Tensor | None,
    grad_last_state: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None,
    scale: float,
    checkpoints: Tensor,
    wanted: list[bool],
) -> list[Tensor]:
    """Backward kernel: the requested gradients of the six tensors."""
    operands = _with_rows((q, k, v, g, beta, initial_state))
    parts = _empty_parts(operands, wanted)
    if v.numel() == 0:
        return _sum_parts(parts, q)
    if checkpoints.shape[2] < (v.shape[1] - 1) // _chunk(q.shape[3]):
        raise RuntimeError(
            'the states for the backward pass were not kept, because no input of '
            'the delta rule required a gradient when it ran'
        )
    # These must stay alive during the call below.
    grad_y = v.new_zeros(v.shape) if grad_y is None else library.rows(grad_y)
    grad_last_state = library.rows(grad_last_state)
    checkpoints = checkpoints.contiguous()
    args = _arguments(*operands, scale)
    args.y = library.View.of(grad_y)
    args.last_state = library.View.of(grad_last_state)
    args.checkpoints = library.pointer(checkpoints)
    args.grad_q = library.View.of(parts['q'])
    args.grad_k = library.View.of(parts['k'])
    args.grad_v = library.View.of(parts['v'])
    args.grad_gate = library.View.of(parts['g'])
    args.grad_beta = library.View.of(parts['beta'])
    args.grad_initial = library.View.of(parts['initial_state'])
    library.load().run('delta_rule', 'backward', args)
    return _sum_parts(parts, q)


@_scan_backward_op.register_fake
def _(
    grad_y: Tensor | None,
    grad_last_state: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None,
    scale: float,
    checkpoints: Tensor,
    wanted: list[bool],
) -> list[Tensor]:
    return _sum_parts(_empty_parts((q, k, v, g, beta, initial_state), wanted), q)


def _empty_parts(
    operands: Sequence[Tensor | None], wanted: list[bool]
) -> dict[str, Tensor | None]:
    """Buffers for the requested gradients, before the sums of ``_sum_parts``.

    Parallel work items never write to the same place: the gradients of q and k have
    one part for each head that reads them.
    """
    v = operands[2]
    parts = {}
    for name, operand, want in zip(OPERANDS, operands, wanted, strict=True):
        if not want or operand is None:
            parts[name] = None
        elif name in ('q', 'k'):
            parts[name] = v.new_empty(*v.shape[:3], operand.shape[3])
        else:
            parts[name] = v.new_empty(operand.shape)
    return parts


def _sum_parts(parts: dict[str, Tensor | None], q_BLGK: Tensor) -> list[Tensor]:
    """The requested gradients, in the order of the operands."""
    grads = []
    for name, part in parts.items():
        if name in ('q', 'k') and part is not None and part.shape != q_BLGK.shape:
            part = part.unflatten(2, (q_BLGK.shape[2], -1)).sum(3)
        if part is not None:
            grads.append(part)
    return grads


def _setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> None:
    *operands, ctx.scale, _ = inputs
    ctx.save_for_backward(*operands, output[2])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, *grad_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
    grad_y, grad_last_state, _ = grad_outputs
    *operands, checkpoints = ctx.saved_tensors
    wanted = [bool(want) for want in ctx.needs_input_grad[: len(OPERANDS)]]
    grads = iter(
        _scan_backward_op(
            grad_y, grad_last_state, *operands, ctx.scale, checkpoints, wanted
        )
    )
    return *(next(grads) if want else None for want in wanted), None, None


_scan_op.register_autograd(_backward, setup_context=_setup_context)
