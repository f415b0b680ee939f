"""Output buffers of the backward pass's programs, and their sums.

Shape suffixes: B batch, K directions, D channels, L steps, M tapped steps.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from . import triton_plan as plan
from .triton_arguments import Scan, channels_last, count_blocks


def output_gradient(
    scan: Scan, grad_y: Tensor | None, grad_taps: Tensor | None
) -> Tensor:
    """Gradient of each direction's output, ``[B, D, L]`` where it is the same for all.

    With taps ``[B, K, D, L]``. Several taps of one step are added in a fixed order.
    """
    B, K, D, L, _, _ = scan.sizes
    if grad_y is None:
        grad_y = scan.u.new_zeros(B, L, D).transpose(1, 2)
    if grad_taps is None or grad_taps.numel() == 0:
        return channels_last(grad_y)
    dy_BKLD = grad_y.float().transpose(1, 2)[:, None].repeat(1, K, 1, 1)
    token_KM = scan.order.gather(1, scan.tap_index)
    k = torch.arange(K, device=token_KM.device)[:, None].expand_as(token_KM)
    rows = dy_BKLD.permute(1, 2, 0, 3)
    # On a GPU, index_put_ also sorts the indices before it accumulates.
    rows.index_put_(
        (k, token_KM), grad_taps.float().permute(1, 3, 0, 2), accumulate=True
    )
    return dy_BKLD.transpose(2, 3)


def empty_parts(scan: Scan, cut: plan.Division) -> dict[str, Tensor]:
    """Buffers for the contribution of every program to the gradients."""
    B, K, D, L, G, N = scan.sizes
    S, J = cut.segments, cut.state_groups

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=scan.u.device)

    def rows(like: Tensor) -> Tensor:
        whole = K * J == 1
        return empty(B, K * J, L, D, dtype=like.dtype if whole else torch.float32)

    states = (count_blocks(D, G, plan.WARP) // G, B, K, G, N, L)
    return dict(
        u=rows(scan.u),
        delta=rows(scan.delta),
        a=empty(B, S, K, N, D),
        b=empty(*states),
        c=empty(*states),
        skip=empty(B, S, K * J, D),
        bias=empty(B, S, K * J, D),
        z=empty(0) if scan.z is None else empty(B, L, D, dtype=scan.z.dtype),
    )


def sum_parts(
    scan: Scan, parts: dict[str, Tensor], wanted: Iterable[bool]
) -> list[Tensor]:
    """The requested gradients, in the layouts that the operator specifies."""
    B, K, D, L, _, _ = scan.sizes

    def rows(name: str, like: Tensor) -> Tensor:
        part = parts[name]
        if part.shape[1] > 1:
            part = part.view(B, K, part.shape[1] // K, L, D)
            part = part.sum((1, 2))[:, None] if like.shape[1] == 1 else part.sum(2)
        return part.to(like.dtype).transpose(2, 3)

    def directions(x: Tensor, dim: int, like: Tensor) -> Tensor:
        return x.sum(dim, keepdim=True) if like.shape[dim] == 1 < K else x

    def vector(name: str, like: Tensor) -> Tensor:
        _, S, slices, _ = parts[name].shape
        part = parts[name].view(B, S, K, slices // K, D).sum((0, 1, 3))
        return directions(part, 0, like).contiguous()

    def matrix(name: str, like: Tensor) -> Tensor:
        return directions(parts[name].sum(0), 1, like).transpose(-1, -2).contiguous()

    finished = (
        lambda: rows('u', scan.u),
        lambda: rows('delta', scan.delta),
        lambda: (
            directions(parts['a'].sum((0, 1)), 0, scan.A).transpose(1, 2).contiguous()
        ),
        lambda: matrix('b', scan.B),
        lambda: matrix('c', scan.C),
        lambda: vector('skip', scan.D),
        lambda: parts['z'].transpose(1, 2),
        lambda: vector('bias', scan.delta_bias),
    )
    return [make() for make, want in zip(finished, wanted, strict=True) if want]
