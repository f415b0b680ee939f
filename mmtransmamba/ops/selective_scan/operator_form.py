"""The selective scan as one torch operator, in the form that backends share.

One operator serves the plain scan (one direction, no order) and the multi-direction
scan. Operands that directions share have size 1 in the dimension of the directions.

Shape suffixes: B batch, K directions, D channels, G groups of channels, N states,
L steps, M tapped steps.
"""

import math
from typing import Any

import torch
from torch import Tensor

OPERANDS = ('u', 'delta', 'A', 'B', 'C', 'D', 'z', 'delta_bias')

# Schemas are written out because older torch does not infer them from annotations
# like ``Tensor | None``.
_OPERAND_SCHEMA = (
    'Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, '
    'Tensor? delta_bias, Tensor? order, Tensor? tap_index'
)
FORWARD_SCHEMA = (
    f'({_OPERAND_SCHEMA}, bool permute_params, bool delta_softplus, '
    'bool keep_states) -> (Tensor, Tensor, Tensor, Tensor)'
)
"""Returns ``y [B, D, L]``, ``taps [B, K, D, M]``, the last state ``[B, D, N]`` (only
without an order) and the states kept; what was not asked for is empty."""
BACKWARD_SCHEMA = (
    '(Tensor? grad_y, Tensor? grad_taps, Tensor? grad_last_state, '
    f'{_OPERAND_SCHEMA}, Tensor checkpoints, bool permute_params, '
    'bool delta_softplus, bool[] wanted) -> Tensor[]'
)
"""Returns the gradients of those of :data:`OPERANDS` that are wanted."""


def common_groups(b: int, c: int) -> int:
    """Number of groups into which those of B and those of C can be divided."""
    # torch.compile knows no least common multiple of sizes that vary.
    if b == c or c == 1:
        return b
    return c if b == 1 else math.lcm(b, c)


def plain_operands(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
) -> tuple[Tensor | None, ...]:
    """Operands of ``selective_scan_fn`` as the operator takes them.

    Returns:
        tuple: ``u`` and ``delta`` ``[B, 1, D, L]``, ``A [1, D, N]``, ``B`` and ``C``
        ``[B, 1, G, L, N]`` with as many groups, ``D [1, D]``, ``z [B, D, L]``,
        ``delta_bias [1, D]``.
    """
    B, C = (x[:, None] if x.dim() == 3 else x for x in (B, C))
    groups = common_groups(B.shape[1], C.shape[1])
    B, C = (
        x if x.shape[1] == groups else x.repeat_interleave(groups // x.shape[1], dim=1)
        for x in (B, C)
    )
    return (
        u[:, None],
        delta[:, None],
        A[None],
        B[:, None].transpose(-1, -2),
        C[:, None].transpose(-1, -2),
        None if D is None else D[None],
        z,
        None if delta_bias is None else delta_bias[None],
    )


def direction_operands(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
) -> tuple[Tensor | None, ...]:
    """Operands of ``selective_scan_directions`` as the operator takes them."""
    B, C = (x[:, :, None].transpose(-1, -2) for x in (B, C))
    return u, delta, A, B, C, D, None, delta_bias


def recording(*tensors: Tensor | None) -> bool:
    """Whether a gradient may be needed, so that states are stored for it."""
    return torch.is_grad_enabled() and any(
        x is not None and x.requires_grad for x in tensors
    )


def register_gradient(forward_op: Any, backward_op: Any) -> None:
    """Register ``backward_op``, of the schema above, as ``forward_op``'s gradient."""

    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> None:
        *operands, order, tap_index, permute_params, delta_softplus, _ = inputs
        ctx.save_for_backward(*operands, order, tap_index, output[3])
        ctx.flags = permute_params, delta_softplus
        ctx.set_materialize_grads(False)

    def backward(ctx: Any, *grad_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        wanted = [bool(want) for want in ctx.needs_input_grad[: len(OPERANDS)]]
        # The last output is the stored states, which have no gradient.
        grads = iter(
            backward_op(*grad_outputs[:3], *ctx.saved_tensors, *ctx.flags, wanted)
        )
        return *(next(grads) if want else None for want in wanted), *[None] * 5

    forward_op.register_autograd(backward, setup_context=setup_context)
