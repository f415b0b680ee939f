"""Tensors of the same values in memory that is not contiguous, amid NaN."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def strided(x: Tensor) -> Tensor:
    """A copy of which every second number of the last dimension is in use."""
    wide = torch.full((*x.shape[:-1], 2 * x.shape[-1]), torch.nan)
    wide[..., ::2] = x.detach()
    return wide[..., ::2]


def part(x: Tensor) -> Tensor:
    """A copy within wider rows."""
    wide = torch.full((*x.shape[:-1], x.shape[-1] + 7), torch.nan)
    wide[..., 3:-4] = x.detach()
    return wide[..., 3:-4]


def check_layouts(function: Callable, operands: Mapping[str, Tensor]) -> None:
    """Outputs and gradients have the same bits for any layout of the operands.

    Args:
        function: Takes the operands by name; the first result is the output.
        operands: Its operands.
    """

    def run(lay_out: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
        leaves = {n: lay_out(x).requires_grad_() for n, x in operands.items()}
        y, *_ = function(**leaves)
        grad = torch.linspace(-1, 1, y.numel()).view(y.shape)
        return y, *torch.autograd.grad(y, leaves.values(), lay_out(grad))

    expected = run(torch.clone)
    for lay_out in (strided, part):
        for one, other in zip(expected, run(lay_out), strict=True):
            assert torch.equal(one, other)
