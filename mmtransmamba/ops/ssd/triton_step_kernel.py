"""Triton kernel of one step of SSD, and its launch.

This module imports Triton, and is therefore imported only when the first step runs.

Shape suffixes: B batch, H heads, P channels of a head, G groups, N states.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..triton_runtime import rows

STATES = 128
"""Most states of a tile."""
TILE = 2048
"""Entries of a tile: 16 for every lane of four warps."""


@triton.jit
def ssd_step(
    STATE,
    X,
    DT,
    A,
    B,
    C,
    SKIP,
    Y,
    NEW,
    x_b,
    x_h,
    dt_b,
    dt_h,
    b_b,
    b_h,
    c_b,
    c_h,
    H,
    R,
    P: tl.constexpr,
    N: tl.constexpr,
    BP: tl.constexpr,
    BN: tl.constexpr,
    HAS_SKIP: tl.constexpr,
):
    """``Y [B, H, P]`` and the state after the step, ``NEW [B, H, P, N]``."""
    i_h = tl.program_id(0) % H
    i_b = (tl.program_id(0) // H).to(tl.int64)
    p = tl.program_id(1) * BP + tl.arange(0, BP)
    dt = tl.load(DT + i_b * dt_b + i_h * dt_h).to(tl.float32)
    decay = tl.exp2(dt * tl.load(A + i_h).to(tl.float32) * 1.4426950408889634)
    x = tl.load(X + i_b * x_b + i_h * x_h + p, mask=p < P, other=0.0).to(tl.float32)
    head = (i_b * H + i_h) * P
    y = tl.zeros([BP], dtype=tl.float32)
    for first in range(0, N, BN):
        n = first + tl.arange(0, BN)
        inside = (p < P)[:, None] & (n < N)[None, :]
        at = head * N + p[:, None] * N + n[None, :]
        state = tl.load(STATE + at, mask=inside, other=0.0).to(tl.float32)
        b = tl.load(B + i_b * b_b + (i_h // R) * b_h + n, mask=n < N, other=0.0)
        c = tl.load(C + i_b * c_b + (i_h // R) * c_h + n, mask=n < N, other=0.0)
        state = decay * state + (dt * x)[:, None] * b.to(tl.float32)[None, :]
        y += tl.sum(state * c.to(tl.float32)[None, :], axis=1)
        tl.store(NEW + at, state.to(NEW.dtype.element_ty), mask=inside)
    if HAS_SKIP:
        y += tl.load(SKIP + i_h).to(tl.float32) * x
    tl.store(Y + head + p, y.to(Y.dtype.element_ty), mask=p < P)


def tile(width: int, states: int) -> tuple[int, int]:
    """Channels and states of a tile."""
    columns = min(STATES, triton.next_power_of_2(states))
    return min(TILE // columns, triton.next_power_of_2(width)), columns


def launch(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    y: Tensor,
    new_state: Tensor,
) -> None:
    """Write the output and the new state."""
    batch, heads, width, states = state.shape
    x, B, C, A = rows(x), rows(B), rows(C), A.contiguous()
    block, columns = tile(width, states)
    with torch.cuda.device_of(x):
        ssd_step[batch * heads, triton.cdiv(width, block)](
            STATE=state.contiguous(),
            X=x,
            DT=dt,
            A=A,
            B=B,
            C=C,
            SKIP=A if D is None else D.contiguous(),
            Y=y,
            NEW=new_state,
            x_b=x.stride(0),
            x_h=x.stride(1),
            dt_b=dt.stride(0),
            dt_h=dt.stride(1),
            b_b=B.stride(0),
            b_h=B.stride(1),
            c_b=C.stride(0),
            c_h=C.stride(1),
            H=heads,
            R=heads // B.shape[1],
            P=width,
            N=states,
            BP=block,
            BN=columns,
            HAS_SKIP=D is not None,
            num_warps=4,
            # Triton 3.10 no longer fuses a product and a sum automatically.
            enable_fp_fusion=True,
        )
