"""Gathering the rows of all ranks, with gradients flowing back to their owners."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch import distributed as dist


class _GatherRows(torch.autograd.Function):
    """The rows of all ranks; backward sums the gradients of all ranks for a row."""

    @staticmethod
    def forward(ctx, rows: Tensor, counts: list[int]) -> Tensor:
        rank = dist.get_rank()
        ctx.begin, ctx.count = sum(counts[:rank]), counts[rank]
        # Collectives require tensors of one shape.
        padded = F.pad(rows, (0, 0, 0, max(counts) - len(rows))).contiguous()
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([p[:n] for p, n in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        grad = grad.contiguous().clone()
        dist.all_reduce(grad)
        return grad.narrow(0, ctx.begin, ctx.count), None


def gather_rows(rows: Tensor) -> tuple[Tensor, int]:
    """The rows of all ranks, in the order of the ranks.

    The gradient of a row is the sum over the ranks' losses. With the mean over ranks
    that DDP takes of parameter gradients, the result is the gradient of the ranks' mean
    loss.

    Args:
        rows: ``[b, C]``; the ranks may differ in b, not in C.

    Returns:
        ``[N, C]``, and the index of this rank's first row. Outside of a process group,
        ``rows`` itself and 0.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return rows, 0
    count = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.empty_like(count) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, count)
    sizes = [int(n) for n in counts]
    gathered = _GatherRows.apply(rows, sizes)
    return gathered, sum(sizes[: dist.get_rank()])
