"""Losses on the logits of a head, without storing all logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = 256
"""Tokens whose logits exist at the same time: 128 MiB of float32 at V = 128K."""


def fused_linear_loss(
    loss: Callable[..., Tensor],
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *rows: Tensor,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Mean over tokens of a loss on the logits ``hidden @ weight.T + bias``.

    The logits ``[M, V]`` exist for one chunk of tokens at a time. The forward pass also
    computes the gradients with respect to hidden states, weight and bias, following
    the fused linear cross-entropy of Hsu et al., "Liger Kernel", 2024, Section 3.2.
    Only these are stored for the backward pass, which multiplies them by the gradient
    of the mean. The gradient of the weight is summed in float32.

    Args:
        loss: Function of logits ``[m, V]`` and the rows ``[m, ...]`` of the same
            tokens; returns ``[m, P]``, P losses of each token.
        hidden: ``[M, C]``.
        weight: ``[V, C]``; no gradient is computed if it does not require one.
        bias: ``[V]`` or None.
        *rows: Further arguments ``[M, ...]`` of ``loss``, which receive no gradient.
        chunk: Number m of tokens; by default :data:`CHUNK`.

    Returns:
        The mean over the tokens of the sum of the P losses, a scalar with a gradient;
        and the mean of each loss, ``[P]``, without one. Float32, or float64 for float64
        hidden states. Both are 0 for M = 0.
    """
    return _FusedLinearLoss.apply(
        loss, chunk or CHUNK, torch.is_grad_enabled(), rows, hidden, weight, bias
    )


class _FusedLinearLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        loss: Callable[..., Tensor],
        chunk: int,
        with_gradients: bool,
        rows: tuple[Tensor, ...],
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        of_hidden, of_weight, of_bias = (
            with_gradients and needed for needed in ctx.needs_input_grad[4:]
        )
        sums = hidden.dtype if hidden.dtype == torch.float64 else torch.float32
        grad_hidden = torch.zeros_like(hidden) if of_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=sums) if of_weight else None
        grad_bias = torch.zeros_like(bias, dtype=sums) if of_bias else None
        count = max(len(hidden), 1)
        parts = None
        # Without any chunk, the number of losses would be unknown for M = 0.
        for start in range(0, len(hidden), chunk) or [0]:
            piece = slice(start, start + chunk)
            states = hidden[piece]
            logits = F.linear(states, weight, bias)
            # An enclosing checkpoint would otherwise treat the graph of the chunk as
            # its own and compute it again.
            with torch.enable_grad(), _graph_of_its_own():
                logits = logits.detach().requires_grad_()
                found = loss(logits, *(row[piece] for row in rows)).sum(0)
                total = found.sum()
                gradient = None
                if of_hidden or of_weight or of_bias:
                    (gradient,) = torch.autograd.grad(total, logits)
            parts = found.detach() if parts is None else parts + found.detach()
            del logits, total, found
            if gradient is None:
                continue
            if of_hidden:
                grad_hidden[piece] = gradient @ weight.to(gradient.dtype)
            if of_weight:
                grad_weight += gradient.T @ states.to(gradient.dtype)
            if of_bias:
                grad_bias += gradient.sum(0, dtype=sums)
        parts = parts.to(sums) / count
        # Divided by the number of tokens only in the backward pass, together with the
        # factor of a gradient scaler: in float16 the gradients could vanish.
        ctx.count = count
        ctx.save_for_backward(
            grad_hidden,
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None if grad_bias is None else grad_bias.to(bias.dtype),
        )
        ctx.mark_non_differentiable(parts)
        return parts.sum(), parts

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        factor = gradient / ctx.count
        scaled = [None if kept is None else kept * factor for kept in ctx.saved_tensors]
        return (None, None, None, None, *scaled)


def _graph_of_its_own() -> Any:
    """Hide what autograd saves from enclosing hooks, such as those of checkpoints."""
    return torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t)
