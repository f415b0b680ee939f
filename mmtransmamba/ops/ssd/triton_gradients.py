"""Triton kernel of the gradients of SSD that belong to single heads.

With the decay e_t from the start of the chunk to step t, w_s from step s to its end,
a_ts between two steps, the drive ``d_s = dt_s x_s``, the state S before the chunk and
the gradient G of the state after it,

    u_s = sum_t a_ts (C_t B_s) dy_t + w_s G B_s,    dx_s = dt_s u_s + D dy_s.

The gradient of the logarithm of step r's decay is the sum of everything that passes
through the step: of pairs s < r <= t, of what later steps read from S, of what earlier
steps leave in the state, and of S itself. Nothing is obtained as a difference of sums:
after a decay to 0, exactly 0 remains, which step sizes of any length may multiply.

Shape suffixes: B batch, L steps, C chunks, H heads, P channels of a head, G groups,
N states, Q steps of a chunk.
"""

import triton
import triton.language as tl

from .triton_math import (
    decay_between,
    decay_from_start,
    decay_to_end,
    load_steps,
    load_tile,
    place,
    product,
)


@triton.jit(do_not_specialize=('L', 'NC'))
def ssd_head_gradients(
    X,
    DT,
    A,
    B,
    C,
    SKIP,
    GRAD,
    SUMS,
    SCORES,
    STATES,
    GRAD_STATES,
    DX,
    DDT,
    DA,
    DSKIP,
    x_b,
    x_l,
    x_h,
    dt_b,
    dt_l,
    dt_h,
    b_b,
    b_l,
    b_h,
    c_b,
    c_l,
    c_h,
    g_b,
    g_l,
    g_h,
    L,
    NC,
    H,
    R,
    P: tl.constexpr,
    N: tl.constexpr,
    Q: tl.constexpr,
    BP: tl.constexpr,
    SLICE: tl.constexpr,
    MIX: tl.constexpr,
    PRECISION: tl.constexpr,
    HAS_SKIP: tl.constexpr,
):
    """``DX [B, L, H, P]``, ``DDT [B, L, H]``; ``DA`` and ``DSKIP [B, C, H]``, to be
    summed.

    ``SUMS``, ``SCORES``, ``STATES`` and ``GRAD_STATES`` are those of ``triton_states``.
    """
    i_h, i_c, i_b = place(H, NC)
    i = tl.arange(0, Q)
    t = i_c * Q + i
    item = (i_b * NC + i_c) * H + i_h
    sums = SUMS + item * Q * 2
    scores = SCORES + ((i_b * NC + i_c) * (H // R) + i_h // R) * Q * Q
    dt = load_steps(DT + i_b * dt_b + i_h * dt_h, dt_l, t, L)
    x_base = X + i_b * x_b + i_h * x_h
    g_base = GRAD + i_b * g_b + i_h * g_h
    left = tl.zeros([Q], dtype=tl.float32)
    driven = tl.zeros([Q], dtype=tl.float32)
    skipped = tl.zeros([Q], dtype=tl.float32)
    for start in range(0, P, BP):
        p = start + tl.arange(0, BP)
        u = tl.zeros([Q, BP], dtype=tl.float32)
        for first in range(0, N, SLICE):
            n = first + tl.arange(0, SLICE)
            behind = load_tile(GRAD_STATES + item * P * N, N, p, P, n, N)
            b = load_tile(B + i_b * b_b + (i_h // R) * b_h, b_l, t, L, n, N)
            u = product(b, tl.trans(behind), u, MIX, PRECISION)
        u *= decay_to_end(sums, i, Q)[:, None]
        x = load_tile(x_base, x_l, t, L, p, P).to(tl.float32)
        left += tl.sum(u * x, axis=1)
        for first in range(0, Q, SLICE):
            j = first + tl.arange(0, SLICE)
            # Rows are the steps that write, unlike in the forward pass.
            attention = tl.load(scores + i[:, None] + j[None, :] * Q)
            attention *= decay_between(sums, j[None, :], i[:, None])
            grad = load_tile(g_base, g_l, i_c * Q + j, L, p, P)
            u = product(attention, grad, u, MIX, PRECISION)
        driven += tl.sum(u * x, axis=1)
        dx = u * dt[:, None]
        if HAS_SKIP:
            grad = load_tile(g_base, g_l, t, L, p, P).to(tl.float32)
            skipped += tl.sum(grad * x, axis=1)
            dx += tl.load(SKIP + i_h) * grad
        to = DX + (i_b * L * H + i_h) * P + t[:, None] * (H * P) + p[None, :]
        inside = (t < L)[:, None] & (p < P)[None, :]
        tl.store(to, dx.to(DX.dtype.element_ty), mask=inside)
    tl.store(DSKIP + item, tl.sum(skipped, axis=0))

    pairs = tl.zeros([Q, Q], dtype=tl.float32)
    read = tl.zeros([Q], dtype=tl.float32)
    kept = 0.0
    for start in range(0, P, SLICE):
        p = start + tl.arange(0, SLICE)
        grad = load_tile(g_base, g_l, t, L, p, P)
        drive = load_tile(x_base, x_l, t, L, p, P).to(tl.float32) * dt[:, None]
        pairs = product(grad, tl.trans(drive), pairs, MIX, PRECISION)
        seen = tl.zeros([Q, SLICE], dtype=tl.float32)
        for first in range(0, N, SLICE):
            n = first + tl.arange(0, SLICE)
            state = load_tile(STATES + item * P * N, N, p, P, n, N)
            behind = load_tile(GRAD_STATES + item * P * N, N, p, P, n, N)
            kept += tl.sum(tl.sum(state * behind, axis=1), axis=0)
            c = load_tile(C + i_b * c_b + (i_h // R) * c_h, c_l, t, L, n, N)
            seen = product(c, tl.trans(state), seen, MIX, PRECISION)
        read += tl.sum(seen * grad.to(tl.float32), axis=1)
    # Rows become the steps r that are passed through: by all pairs that end at r or
    # later, and by what is left in the state.
    pairs *= tl.load(scores + i[:, None] * Q + i[None, :])
    pairs *= decay_between(sums, i[:, None], i[None, :])
    through = tl.cumsum(pairs, axis=0, reverse=True) + (left * dt)[None, :]
    dlog = tl.sum(tl.where(i[None, :] < i[:, None], through, 0.0), axis=1)
    dlog += tl.cumsum(read * decay_from_start(sums, i), axis=0, reverse=True)
    dlog += kept * decay_from_start(sums, Q - 1)
    rate = tl.load(A + i_h)
    # Where the logarithm is limited, it has no gradient.
    dlog = tl.where(dt * rate * 1.4426950408889634 > -32768.0, dlog, 0.0)
    ddt = driven + dlog * rate
    tl.store(DDT + i_b * L * H + t * H + i_h, ddt.to(DDT.dtype.element_ty), mask=t < L)
    tl.store(DA + item, tl.sum(dlog * dt, axis=0))
