"""Launches of the selective scan's Triton kernels.

This module imports Triton, and is therefore imported only when the first scan runs.

Shape suffixes: B batch, K directions, J groups of states, D channels, G groups of
channels, N states, L steps, M tapped steps.
"""

from typing import Any

import torch
import triton
from torch import Tensor

from . import triton_plan as plan
from .triton_arguments import Scan, count_blocks, geometry, shared_arguments
from .triton_backward import scan_backward
from .triton_forward import scan_forward
from .triton_gradients import empty_parts, output_gradient, sum_parts
from .triton_segments import carry_segments, scan_segment

# Triton 3.10 no longer fuses a product and a sum automatically.
_OPTIONS = dict(enable_fp_fusion=True)


def forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The forward pass; arguments and results as in ``operator_form``."""
    scan, keep = Scan(*arguments[:-1]), arguments[-1]
    B, K, D, L, G, N = scan.sizes
    together = K if scan.shares_decays() else 1
    cut = plan.divide(B * K // together, D // G, G, L, N, backward=False)
    J = cut.state_groups
    u = scan.u
    float32 = dict(dtype=torch.float32, device=u.device)
    y_BSLD = torch.empty(
        B, K * J, L, D, device=u.device, dtype=u.dtype if K * J == 1 else torch.float32
    )
    last_BND = torch.empty(*((B, N, D) if scan.order is None else (0,)), **float32)
    slots = -(-L // cut.checkpoint) - 1 if keep else cut.segments - 1
    states = torch.empty(B, K, slots, N, D, **float32)
    if y_BSLD.numel():
        with torch.cuda.device_of(u):
            tensors = shared_arguments(scan)
            if cut.segments > 1:
                every = cut.segment // cut.checkpoint if keep else 1
                _carry_states(scan, tensors, cut, states, every)
            grid = (
                B * K // together * J * count_blocks(D, G, cut.block) * cut.segments,
            )
            scan_forward[grid](
                **tensors,
                Y=y_BSLD,
                STATES=states,
                LAST=last_BND,
                **geometry(scan, cut),
                NC=slots,
                KP=together,
                KB=scan.B.shape[1],
                KC=scan.C.shape[1],
                BD=cut.block,
                UN=max(1, plan.UNROLL // together),
                CK=cut.checkpoint,
                KEEP=keep,
                SEGMENTED=cut.segments > 1,
                HAS_SKIP=scan.D is not None,
                WANT_LAST=scan.order is None,
                num_warps=cut.warps,
                num_stages=1,
                **_OPTIONS,
            )
    y = y_BSLD[:, 0] if K * J == 1 else y_BSLD.sum(1).to(u.dtype)
    taps = u.new_empty(0)
    if scan.tap_index is not None:
        y_BKLD = y_BSLD.view(B, K, J, L, D)
        y_BKLD = y_BKLD[:, :, 0] if J == 1 else y_BKLD.sum(2)
        token_KM = scan.order.gather(1, scan.tap_index)
        index = token_KM[None, :, :, None].expand(B, -1, -1, D)
        taps = y_BKLD.gather(2, index).to(u.dtype).transpose(2, 3)
    last = last_BND.transpose(1, 2) if scan.order is None else last_BND
    return y.transpose(1, 2), taps, last, states if keep else states[:, :, :0].clone()


def backward(
    grad_y: Tensor | None,
    grad_taps: Tensor | None,
    grad_last_state: Tensor | None,
    *rest: Any,
) -> list[Tensor]:
    """The backward pass; arguments and results as in ``operator_form``.

    Raises:
        RuntimeError: If the forward pass stored no states for it.
    """
    *arguments, states, permute_params, delta_softplus, wanted = rest
    scan = Scan(*arguments, permute_params, delta_softplus)
    B, K, D, L, G, N = scan.sizes
    slots = -(-L // plan.checkpoint_steps(N)) - 1
    if states.shape[2] < slots:
        raise RuntimeError(
            'the states for the backward pass were not kept, because no input of '
            'the selective scan required a gradient when it ran'
        )
    cut = plan.divide(B * K, D // G, G, L, N, backward=True)
    J, S = cut.state_groups, cut.segments
    parts = empty_parts(scan, cut)
    if scan.u.numel():
        with torch.cuda.device_of(scan.u):
            tensors = shared_arguments(scan)
            dy = output_gradient(scan, grad_y, grad_taps)
            dy_k = dy.stride(1) if dy.dim() == 4 else 0
            strides = dict(y_b=dy.stride(0), y_k=dy_k, y_l=dy.stride(-1))
            behind = grad_last_state
            if behind is not None:
                behind = behind.float().transpose(1, 2).contiguous()
            if S > 1:
                behind = _carry_gradients(scan, tensors, cut, dy, strides, behind)
            programs = B * K * J * count_blocks(D, G, plan.WARP) * S
            scratch = states.new_empty(
                programs, cut.checkpoint // plan.TILE + 2, cut.states, plan.WARP
            )
            scan_backward[(programs,)](
                **tensors,
                STATES=states.contiguous(),
                GRAD_Y=dy,
                GRAD_STATE=scratch if behind is None else behind,
                SCRATCH=scratch,
                **{f'D{name.upper()}': part for name, part in parts.items()},
                **strides,
                **geometry(scan, cut),
                NC=slots,
                KB=scan.B.shape[1],
                KC=scan.C.shape[1],
                T=plan.TILE,
                CK=cut.checkpoint,
                HAS_SKIP=scan.D is not None,
                HAS_GRAD_STATE=behind is not None,
                num_warps=1,
                num_stages=1,
                **_OPTIONS,
            )
    return sum_parts(scan, parts, wanted)


def _carry_states(
    scan: Scan,
    tensors: dict[str, Any],
    cut: plan.Division,
    states: Tensor,
    every: int,
) -> None:
    """Fill in the initial state of each segment but the first."""
    local, total = _scan_segments(
        scan,
        tensors | dict(M=tensors['B'], KM=scan.B.shape[1]),
        (tensors['U'], tensors['u_b'], tensors['u_k'], tensors['u_l']),
        cut,
        reverse=False,
    )
    _carry(scan, tensors, cut, local, total, states, every)


def _carry_gradients(
    scan: Scan,
    tensors: dict[str, Any],
    cut: plan.Division,
    dy: Tensor,
    strides: dict[str, int],
    behind: Tensor | None,
) -> Tensor:
    """Gradients of the states after the segments, ``[B, K, S, N, D]``."""
    local, total = _scan_segments(
        scan,
        tensors | dict(M=tensors['C'], KM=scan.C.shape[1]),
        (dy, *strides.values()),
        cut,
        reverse=True,
    )
    out = torch.empty_like(local)
    _carry(scan, tensors, cut, local, total, out, 1, True, behind)
    return out


def _scan_segments(
    scan: Scan,
    tensors: dict[str, Any],
    x: tuple[Tensor, int, int, int],
    cut: plan.Division,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    B, K, D, _, G, N = scan.sizes
    S = cut.segments
    local = torch.empty(B, K, S, N, D, dtype=torch.float32, device=scan.u.device)
    total = local.new_empty(B, K, S, D)
    names = ('DELTA', 'A', 'M', 'KM', 'BIAS', 'Z', 'ORDER', 'delta_b', 'delta_k')
    names += ('delta_l', 'z_b', 'z_l', 'a_k', 'bias_k')
    grid = (B * K * cut.state_groups * count_blocks(D, G, plan.WARP) * S,)
    scan_segment[grid](
        **{name: tensors[name] for name in names},
        **dict(zip(('X', 'x_b', 'x_k', 'x_l'), x, strict=True)),
        LOCAL=local,
        TOTAL=total,
        **geometry(scan, cut),
        BD=plan.WARP,
        REVERSE=reverse,
        num_warps=1,
        num_stages=1,
        **_OPTIONS,
    )
    return local, total


def _carry(
    scan: Scan,
    tensors: dict[str, Any],
    cut: plan.Division,
    local: Tensor,
    total: Tensor,
    out: Tensor,
    every: int,
    reverse: bool = False,
    start: Tensor | None = None,
) -> None:
    B, K, D, _, _, N = scan.sizes
    block = 128
    carry_segments[(triton.cdiv(N * D, block), B * K)](
        LOCAL=local,
        TOTAL=total,
        A=tensors['A'],
        START=local if start is None else start,
        OUT=out,
        a_k=tensors['a_k'],
        D=D,
        S=cut.segments,
        slots=out.shape[2],
        every=every,
        K=K,
        N=N,
        BLOCK=block,
        REVERSE=reverse,
        HAS_START=start is not None,
        num_warps=4,
        **_OPTIONS,
    )
