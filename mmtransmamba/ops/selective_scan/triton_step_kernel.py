"""Triton kernel of one step of the selective scan, and its launch.

This module imports Triton, and is therefore imported only when the first step runs.

Shape suffixes: B batch, D channels, G groups of channels, N states.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..triton_runtime import rows
from .triton_math import sigmoid, softplus

STATES = 128
"""Most states of a tile."""
TILE = 512
"""Entries of a tile: four for every lane of four warps, loads of 16 bytes.

A step is bound by memory and by its launch. Small tiles give the channels of a single
sequence to many multiprocessors: 48 for 1,536 channels of 16 states.
"""


@triton.jit
def scan_step(
    STATE,
    U,
    DELTA,
    A,
    B,
    C,
    SKIP,
    Z,
    BIAS,
    Y,
    NEW,
    u_b,
    delta_b,
    b_b,
    b_g,
    c_b,
    c_g,
    z_b,
    D,
    RB,
    RC,
    N: tl.constexpr,
    BD: tl.constexpr,
    BN: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    HAS_SKIP: tl.constexpr,
    HAS_Z: tl.constexpr,
    HAS_BIAS: tl.constexpr,
):
    """``Y [B, D]`` and the state after the step, ``NEW [B, D, N]``.

    ``RB`` and ``RC`` channels share a row of ``B`` and ``C``.
    """
    blocks = tl.cdiv(D, BD)
    i_b = (tl.program_id(0) // blocks).to(tl.int64)
    d = (tl.program_id(0) % blocks) * BD + tl.arange(0, BD)
    known = d < D
    u = tl.load(U + i_b * u_b + d, mask=known, other=0.0).to(tl.float32)
    dt = tl.load(DELTA + i_b * delta_b + d, mask=known, other=0.0).to(tl.float32)
    if HAS_BIAS:
        dt += tl.load(BIAS + d, mask=known, other=0.0).to(tl.float32)
    if SOFTPLUS:
        dt = softplus(dt)
    y = tl.zeros([BD], dtype=tl.float32)
    for first in range(0, N, BN):
        n = first + tl.arange(0, BN)
        inside = known[:, None] & (n < N)[None, :]
        at = d[:, None] * N + n[None, :]
        rate = tl.load(A + at, mask=inside, other=0.0).to(tl.float32)
        decay = tl.exp2(dt[:, None] * rate * 1.4426950408889634)
        at += i_b * D * N
        state = tl.load(STATE + at, mask=inside, other=0.0).to(tl.float32)
        row_b = B + i_b * b_b + (d // RB)[:, None] * b_g + n[None, :]
        row_c = C + i_b * c_b + (d // RC)[:, None] * c_g + n[None, :]
        b = tl.load(row_b, mask=inside, other=0.0).to(tl.float32)
        c = tl.load(row_c, mask=inside, other=0.0).to(tl.float32)
        state = decay * state + (dt * u)[:, None] * b
        y += tl.sum(state * c, axis=1)
        tl.store(NEW + at, state.to(NEW.dtype.element_ty), mask=inside)
    if HAS_SKIP:
        y += tl.load(SKIP + d, mask=known, other=0.0).to(tl.float32) * u
    if HAS_Z:
        z = tl.load(Z + i_b * z_b + d, mask=known, other=0.0).to(tl.float32)
        y *= z * sigmoid(z)
    tl.store(Y + i_b * D + d, y.to(Y.dtype.element_ty), mask=known)


def tile(channels: int, states: int) -> tuple[int, int]:
    """Channels and states of a tile."""
    columns = min(STATES, triton.next_power_of_2(states))
    return min(max(TILE // columns, 1), triton.next_power_of_2(channels)), columns


def launch(
    state: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    y: Tensor,
    new_state: Tensor,
) -> None:
    """Write the output and the new state."""
    batch, channels, states = state.shape
    u, delta, B, C = (rows(x) for x in (u, delta, B, C))
    gate = u if z is None else rows(z)
    A = A.contiguous()
    block, columns = tile(channels, states)
    with torch.cuda.device_of(u):
        scan_step[(batch * triton.cdiv(channels, block),)](
            STATE=state.contiguous(),
            U=u,
            DELTA=delta,
            A=A,
            B=B,
            C=C,
            SKIP=A if D is None else D.contiguous(),
            Z=gate,
            BIAS=A if delta_bias is None else delta_bias.contiguous(),
            Y=y,
            NEW=new_state,
            u_b=u.stride(0),
            delta_b=delta.stride(0),
            b_b=B.stride(0),
            b_g=B.stride(1),
            c_b=C.stride(0),
            c_g=C.stride(1),
            z_b=gate.stride(0),
            D=channels,
            RB=channels // B.shape[1],
            RC=channels // C.shape[1],
            N=states,
            BD=block,
            BN=columns,
            SOFTPLUS=delta_softplus,
            HAS_SKIP=D is not None,
            HAS_Z=z is not None,
            HAS_BIAS=delta_bias is not None,
            num_warps=4,
            # Triton 3.10 no longer fuses a product and a sum automatically.
            enable_fp_fusion=True,
        )
