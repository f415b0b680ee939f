"""The selective scan on the compiled CPU kernels, as a torch custom op.

One op serves the plain scan (one direction, no order) and the multi-direction scan.

Shape suffixes: B batch, K directions, D channels, G groups of channels, N states,
L steps, M tapped steps. A dimension written 1|K is 1 when the directions share the
operand.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..native import library
from ..native.library import refuses_place_or_dtype, unavailable
from .operator_form import (
    BACKWARD_SCHEMA,
    FORWARD_SCHEMA,
    OPERANDS,
    direction_operands,
    plain_operands,
    recording,
    register_gradient,
)

__all__ = ['refuses', 'scan', 'scan_directions', 'unavailable']

WARN_WHEN_UNAVAILABLE = True


def refuses(tensors: Mapping[str, Tensor | None]) -> str | None:
    """Why these tensors need another backend, or None."""
    reason = refuses_place_or_dtype('u', tensors)
    if reason is not None:
        return reason
    for name in ('B', 'C'):
        if tensors[name].dim() == 2:
            return f'{name} of shape [D, N], constant over time, is not implemented'
    return None


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
    operands = plain_operands(u, delta, A, B, C, D, z, delta_bias)
    y, _, last_state, _ = _scan_op(
        *operands, None, None, False, delta_softplus, recording(*operands)
    )
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
    operands = direction_operands(u, delta, A, B, C, D, delta_bias)
    y, taps, _, _ = _scan_op(
        *operands,
        order,
        tap_index,
        permute_params,
        delta_softplus,
        recording(*operands),
    )
    return y, None if tap_index is None else taps


def _states_last(x: Tensor) -> Tensor:
    """A tensor with unit stride over the states, copied only if needed.

    Models that compute B and C with a linear layer have this layout already. The op
    itself ensures it, because torch.compile may pass other strides than those it was
    traced with.
    """
    return x if x.stride(-1) == 1 else x.contiguous()


def _chunk(states: int) -> int:
    """Steps between two states stored for the backward pass.

    At least ``4 * N``, so that the stored states stay below a quarter of ``u`` per
    direction; the states of a chunk also must fit the second-level cache.
    """
    return max(64, 4 * states)


def _segments(batch: int, groups: int, channels: int, states: int) -> int:
    """Parts into which the channels of a group are divided for parallel work.

    The number depends on the shapes only, never on the number of threads, so that the
    gradients of B and C are summed in the same order everywhere. Each part adds one
    partial gradient ``[B, L, N]``, hence the lower bound on its width.
    """
    width = channels // groups
    needed = -(-64 // max(1, batch * groups))
    return max(1, min(width // max(64, 2 * states), needed))


def _empty_outputs(
    u_BKDL: Tensor,
    A_KDN: Tensor,
    B_BKGLN: Tensor,
    order_KL: Tensor | None,
    tap_index_KM: Tensor | None,
    keep_states: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, _, channels, length = u_BKDL.shape
    directions = 1 if order_KL is None else order_KL.shape[0]
    states, groups = A_KDN.shape[2], B_BKGLN.shape[2]
    # Channels last in memory: the kernel writes whole vectors of channels, and the
    # output projection that follows a scan reads them in this layout.
    y_BDL = u_BKDL.new_empty(batch, length, channels).transpose(1, 2)
    taps = u_BKDL.new_empty(0)
    if tap_index_KM is not None:
        taps = u_BKDL.new_empty(batch, directions, tap_index_KM.shape[1], channels)
        taps = taps.transpose(2, 3)
    last_state = u_BKDL.new_empty(0)
    if order_KL is None:
        last_state = u_BKDL.new_empty(batch, channels, states)
    kept = (length - 1) // _chunk(states) if keep_states else 0
    padded = -(-(channels // groups) // 16) * 16
    # Where channels do not fill whole vectors, the lanes that are written depend on the
    # width of the vectors. An operator must not return what happens to be in memory.
    new = u_BKDL.new_zeros if padded * groups > channels else u_BKDL.new_empty
    checkpoints = new(batch, directions, kept, states, groups * padded)
    return y_BDL, taps, last_state, checkpoints


def _arguments(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    order: Tensor | None,
    tap_index: Tensor | None,
    permute_params: bool,
    delta_softplus: bool,
) -> library.ScanArgs:
    batch, _, channels, length = u.shape
    directions = 1 if order is None else order.shape[0]
    groups, states = B.shape[2], A.shape[2]

    def shared(x: Tensor) -> bool:
        return x.shape[1] == 1

    return library.ScanArgs(
        batch=batch,
        directions=directions,
        groups=groups,
        channels=channels,
        states=states,
        length=length,
        taps=0 if tap_index is None else tap_index.shape[1],
        chunk=_chunk(states),
        segments=_segments(batch, groups, channels, states),
        permute_params=permute_params,
        softplus=delta_softplus,
        shared_u=shared(u),
        shared_delta=shared(delta),
        shared_b=shared(B),
        shared_c=shared(C),
        order=_pointer(order),
        tap_index=_pointer(tap_index),
        u=_view(u, directions, 1),
        delta=_view(delta, directions, 1),
        a=_view(A, directions, 0),
        b=_view(B, directions, 1),
        c=_view(C, directions, 1),
        d=_view(D, directions, 0),
        bias=_view(delta_bias, directions, 0),
        z=library.View.of(z),
    )


def _view(x: Tensor | None, directions: int, dim: int) -> library.View:
    """View with stride 0 over the directions where they share the operand."""
    if x is not None and x.shape[dim] != directions:
        x = x.expand(*x.shape[:dim], directions, *x.shape[dim + 1 :])
    return library.View.of(x)


def _pointer(x: Tensor | None) -> int | None:
    return None if x is None or x.numel() == 0 else x.data_ptr()


def _index(index: Tensor | None) -> Tensor | None:
    return None if index is None else index.contiguous()


@torch.library.custom_op(
    'mmtransmamba::selective_scan',
    mutates_args=(),
    schema=FORWARD_SCHEMA,
)
def _scan_op(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    order: Tensor | None,
    tap_index: Tensor | None,
    permute_params: bool,
    delta_softplus: bool,
    keep_states: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Forward kernel.

    Args:
        u, delta (Tensor): ``[B, 1|K, D, L]``.
        A (Tensor): ``[1|K, D, N]``.
        B, C (Tensor): ``[B, 1|K, G, L, N]``, best with unit stride over states.
        D, delta_bias (Tensor, optional): ``[1|K, D]``.
        z (Tensor, optional): ``[B, D, L]``, only without an order.
        order, tap_index (Tensor, optional): ``[K, L]`` and ``[K, M]``.
        permute_params, delta_softplus (bool): As in the public functions.
        keep_states (bool): Store the states that the backward pass needs.

    Returns:
        tuple: ``y [B, D, L]``, ``taps [B, K, D, M]``, last state ``[B, D, N]`` (only
        without an order) and stored states; outputs not requested are empty.
    """
    outputs = _empty_outputs(u, A, B, order, tap_index, keep_states)
    y, taps, last_state, checkpoints = outputs
    if y.numel() == 0:
        return outputs
    B, C = _states_last(B), _states_last(C)
    order, tap_index = _index(order), _index(tap_index)
    args = _arguments(
        *(u, delta, A, B, C, D, z, delta_bias, order, tap_index),
        *(permute_params, delta_softplus),
    )
    args.y = library.View.of(y)
    args.tapped = library.View.of(None if tap_index is None else taps)
    args.last_state = library.View.of(None if order is not None else last_state)
    args.checkpoints = _pointer(checkpoints)
    library.load().run('selective_scan', 'forward', args)
    return outputs


@_scan_op.register_fake
def _(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    order: Tensor | None,
    tap_index: Tensor | None,
    permute_params: bool,
    delta_softplus: bool,
    keep_states: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _empty_outputs(u, A, B, order, tap_index, keep_states)


@torch.library.custom_op(
    'mmtransmamba::selective_scan_backward',
    mutates_args=(),
    schema=BACKWARD_SCHEMA,
)
def _scan_backward_op(
    grad_y: Tensor | None,
    grad_taps: Tensor | None,
    grad_last_state: Tensor | None,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    order: Tensor | None,
    tap_index: Tensor | None,
    checkpoints: Tensor,
    permute_params: bool,
    delta_softplus: bool,
    wanted: list[bool],
) -> list[Tensor]:
    """Backward kernel: the requested gradients of the eight tensors."""
    B, C = _states_last(B), _states_last(C)
    operands = (u, delta, A, B, C, D, z, delta_bias)
    parts = _empty_parts(operands, wanted)
    if u.numel() == 0:
        return _sum_parts(parts)
    if checkpoints.shape[2] < (u.shape[3] - 1) // _chunk(A.shape[2]):
        raise RuntimeError(
            'the states for the backward pass were not kept, because no input of '
            'the selective scan required a gradient when it ran'
        )
    checkpoints = checkpoints.contiguous()
    order = _index(order)
    tap_index = None if grad_taps is None else _index(tap_index)
    args = _arguments(*operands, order, tap_index, permute_params, delta_softplus)
    if grad_y is None:
        grad_y = u.new_zeros(()).expand(u.shape[0], *u.shape[2:])
    args.y = library.View.of(grad_y)
    args.tapped = library.View.of(grad_taps)
    args.last_state = library.View.of(grad_last_state)
    args.checkpoints = _pointer(checkpoints)
    args.grad_u = _view(parts['u'], args.directions, 1)
    args.grad_delta = _view(parts['delta'], args.directions, 1)
    args.grad_a = _view(parts['A'], args.directions, 1)
    args.grad_b = _pointer(parts['B'])
    args.grad_c = _pointer(parts['C'])
    args.grad_d = _view(parts['D'], args.directions, 1)
    args.grad_z = library.View.of(parts['z'])
    args.grad_bias = _view(parts['delta_bias'], args.directions, 1)
    library.load().run('selective_scan', 'backward', args)
    return _sum_parts(parts)


@_scan_backward_op.register_fake
def _(
    grad_y: Tensor | None,
    grad_taps: Tensor | None,
    grad_last_state: Tensor | None,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    order: Tensor | None,
    tap_index: Tensor | None,
    checkpoints: Tensor,
    permute_params: bool,
    delta_softplus: bool,
    wanted: list[bool],
) -> list[Tensor]:
    return _sum_parts(_empty_parts((u, delta, A, B, C, D, z, delta_bias), wanted))


def _empty_parts(
    operands: Sequence[Tensor | None], wanted: list[bool]
) -> dict[str, Tensor | None]:
    """Buffers for the requested gradients, before the sums of ``_sum_parts``.

    Parallel work items never write to the same place: the gradients of A, D and
    delta_bias have one part per batch entry, those of B and C one per channel segment.
    """
    u, _, A, B = operands[:4]
    batch, channels = u.shape[0], u.shape[2]
    segments = _segments(batch, B.shape[2], channels, A.shape[2])
    parts = {}
    for name, x, want in zip(OPERANDS, operands, wanted, strict=True):
        if not want or x is None:
            parts[name] = None
        elif name in ('B', 'C'):
            parts[name] = x.new_empty(*x.shape[:3], segments, *x.shape[3:])
        elif name in ('A', 'D', 'delta_bias'):
            parts[name] = x.new_empty(batch, *x.shape)
        else:
            parts[name] = torch.empty_like(x)
    return parts


def _sum_parts(parts: dict[str, Tensor | None]) -> list[Tensor]:
    """The requested gradients, in the order of the operands."""
    sum_over = {'A': 0, 'B': 3, 'C': 3, 'D': 0, 'delta_bias': 0}
    return [
        part.sum(sum_over[name]) if name in sum_over else part
        for name, part in parts.items()
        if part is not None
    ]


register_gradient(_scan_op, _scan_backward_op)
