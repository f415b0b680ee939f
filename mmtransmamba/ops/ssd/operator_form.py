"""SSD as a torch operator, in the form that backends with kernels share."""

from typing import Any

from torch import Tensor

OPERANDS = ('x', 'dt', 'A', 'B', 'C', 'D', 'initial_state')
# Schemas are written out because older torch does not infer them from annotations
# like ``Tensor | None``.
SCHEMA = (
    'Tensor x, Tensor dt, Tensor A, Tensor B, Tensor C, Tensor? D, '
    'Tensor? initial_state'
)


def register_gradient(forward_op: Any, backward_op: Any) -> None:
    """Register an operator as the gradient of another.

    Args:
        forward_op: Takes :data:`OPERANDS` and perhaps flags; returns the output, the
            last state, and what else the gradient needs.
        backward_op: Takes the gradients of output and last state, each or None, the
            operands, what else ``forward_op`` returned, and for each operand whether
            its gradient is wanted; returns the list of these.
    """

    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs[: len(OPERANDS)], *output[2:])
        ctx.flags = len(inputs) - len(OPERANDS)
        ctx.set_materialize_grads(False)

    def backward(ctx: Any, *grad_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        wanted = [bool(want) for want in ctx.needs_input_grad[: len(OPERANDS)]]
        grads = iter(backward_op(*grad_outputs[:2], *ctx.saved_tensors, wanted))
        found = (next(grads) if want else None for want in wanted)
        return *found, *[None] * ctx.flags

    forward_op.register_autograd(backward, setup_context=setup_context)
