"""SSD on the compiled CPU kernels, as a torch custom op.

Shape suffixes: B batch, L steps, H heads, P channels of a head, G groups of heads,
N states, C chunks, S segments of the heads of a group.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..native import library
from ..native.library import refuses_place_or_dtype, unavailable
from .operator_form import OPERANDS, SCHEMA, register_gradient

__all__ = ['refuses', 'scan', 'unavailable']

WARN_WHEN_UNAVAILABLE = True

_ROW_OPERANDS = ('x', 'B', 'C', 'initial_state')


def refuses(tensors: Mapping[str, Tensor | None]) -> str | None:
    """Why these tensors need another backend, or None."""
    return refuses_place_or_dtype('x', tensors)


def scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    initial_state: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """See ``ssd_scan``; returns the output and the last state."""
    operands = (x, dt, A, B, C, D, initial_state)
    recording = torch.is_grad_enabled() and any(
        operand is not None and operand.requires_grad for operand in operands
    )
    y, last_state, _ = _scan_op(*operands, recording)
    return y, last_state


def _chunk(states: int) -> int:
    """Steps that form one block of matrix products.

    One state per chunk is stored for the backward pass. With about as many steps as
    states, up to 128, all stored states together are about as large as ``x``. Within
    these bounds the choice hardly affects the time.
    """
    return 32 if states <= 32 else 64 if states <= 64 else 128


def _segments(batch: int, groups: int, heads: int) -> int:
    """Parts into which the heads of a group are divided for parallel work.

    The number depends on the shapes only, never on the number of threads, so that the
    gradients of B and C are summed in the same order everywhere. Each part recomputes
    the scores of the group and adds one partial gradient ``[B, L, N]``, hence at least
    four heads.
    """
    needed = -(-32 // max(1, batch * groups))
    return max(1, min(heads // groups // 4, needed))


def _empty_outputs(
    x_BLHP: Tensor, B_BLGN: Tensor, keep_states: bool
) -> tuple[Tensor, Tensor, Tensor]:
    batch, length, heads, width = x_BLHP.shape
    states = B_BLGN.shape[3]
    kept = (length - 1) // _chunk(states) if keep_states else 0
    padded = -(-width // 16) * 16
    return (
        x_BLHP.new_empty(x_BLHP.shape),
        x_BLHP.new_empty(batch, heads, width, states),
        x_BLHP.new_empty(batch, heads, kept, states, padded),
    )


def _arguments(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    initial_state: Tensor | None,
) -> library.SsdArgs:
    batch, length, heads, width = x.shape
    groups, states = B.shape[2:]
    return library.SsdArgs(
        batch=batch,
        length=length,
        heads=heads,
        width=width,
        groups=groups,
        states=states,
        chunk=_chunk(states),
        segments=_segments(batch, groups, heads),
        x=library.View.of(x),
        dt=library.View.of(dt),
        a=library.View.of(A),
        d=library.View.of(D),
        b=library.View.of(B),
        c=library.View.of(C),
        initial_state=library.View.of(initial_state),
    )


def _with_rows(operands: Sequence[Tensor | None]) -> list[Tensor | None]:
    return [
        library.rows(x) if name in _ROW_OPERANDS else x
        for name, x in zip(OPERANDS, operands, strict=True)
    ]


@torch.library.custom_op(
    'mmtransmamba::ssd',
    mutates_args=(),
    schema=f'({SCHEMA}, bool keep_states) -> (Tensor, Tensor, Tensor)',
)
def _scan_op(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    initial_state: Tensor | None,
    keep_states: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Forward kernel: output, last state and the states before each chunk."""
    outputs = y, last_state, checkpoints = _empty_outputs(x, B, keep_states)
    if y.numel() == 0:
        return outputs
    operands = _with_rows((x, dt, A, B, C, D, initial_state))
    args = _arguments(*operands)
    args.y = library.View.of(y)
    args.last_state = library.View.of(last_state)
    args.checkpoints = library.pointer(checkpoints)
    library.load().run('ssd', 'forward', args)
    return outputs


@_scan_op.register_fake
def _(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    initial_state: Tensor | None,
    keep_states: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return _empty_outputs(x, B, keep_states)


@torch.library.custom_op(
    'mmtransmamba::ssd_backward',
    mutates_args=(),
    schema=(
        f'(Tensor? grad_y, Tensor? grad_last_state, {SCHEMA}, '
        'Tensor checkpoints, bool[] wanted) -> Tensor[]'
    ),
)
def _scan_backward_op(
    grad_y: Tensor | None,
    grad_last_state: Tensor | None,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    initial_state: Tensor | None,
    checkpoints: Tensor,
    wanted: list[bool],
) -> list[Tensor]:
    """Backward kernel: the requested gradients of the seven tensors."""
    operands = _with_rows((x, dt, A, B, C, D, initial_state))
    parts = _empty_parts(operands, wanted)
    if x.numel() == 0:
        return _sum_parts(parts)
    if checkpoints.shape[2] < (x.shape[1] - 1) // _chunk(B.shape[3]):
        raise RuntimeError(
            'the states for the backward pass were not kept, because no input of '
            'SSD required a gradient when it ran'
        )
    # Both must stay alive during the call below.
    grad_y = x.new_zeros(x.shape) if grad_y is None else library.rows(grad_y)
    grad_last_state, checkpoints = (
        library.rows(grad_last_state),
        checkpoints.contiguous(),
    )
    args = _arguments(*operands)
    args.y = library.View.of(grad_y)
    args.last_state = library.View.of(grad_last_state)
    args.checkpoints = library.pointer(checkpoints)
    args.grad_x = library.View.of(parts['x'])
    args.grad_dt = library.View.of(parts['dt'])
    args.grad_a = library.View.of(parts['A'])
    args.grad_b = library.pointer(parts['B'])
    args.grad_c = library.pointer(parts['C'])
    args.grad_d = library.View.of(parts['D'])
    args.grad_initial = library.View.of(parts['initial_state'])
    library.load().run('ssd', 'backward', args)
    return _sum_parts(parts)


@_scan_backward_op.register_fake
def _(
    grad_y: Tensor | None,
    grad_last_state: Tensor | None,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    initial_state: Tensor | None,
    checkpoints: Tensor,
    wanted: list[bool],
) -> list[Tensor]:
    return _sum_parts(_empty_parts((x, dt, A, B, C, D, initial_state), wanted))


def _empty_parts(
    operands: Sequence[Tensor | None], wanted: list[bool]
) -> dict[str, Tensor | None]:
    """Buffers for the requested gradients, before the sums of ``_sum_parts``.

    Parallel work items never write to the same place: the gradients of A and D have one
    part per batch entry, those of B and C one per segment of heads.
    """
    x, B = operands[0], operands[3]
    batch, heads, groups = x.shape[0], x.shape[2], B.shape[2]
    parts = {}
    for name, operand, want in zip(OPERANDS, operands, wanted, strict=True):
        if not want or operand is None:
            parts[name] = None
        elif name in ('B', 'C'):
            segments = _segments(batch, groups, heads)
            parts[name] = x.new_empty(*B.shape[:3], segments, B.shape[3])
        elif name in ('A', 'D'):
            parts[name] = x.new_empty(batch, heads)
        else:
            parts[name] = x.new_empty(operand.shape)
    return parts


def _sum_parts(parts: dict[str, Tensor | None]) -> list[Tensor]:
    """The requested gradients, in the order of the operands."""
    sum_over = {'A': 0, 'B': 3, 'C': 3, 'D': 0}
    return [
        part.sum(sum_over[name]) if name in sum_over else part
        for name, part in parts.items()
        if part is not None
    ]


register_gradient(_scan_op, _scan_backward_op)
