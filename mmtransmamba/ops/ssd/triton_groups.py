"""Triton kernels of the gradients of B and C, which the heads of a group share.

In the notation of ``triton_gradients``, for every head of the group,

    dB_s = sum_t a_ts (dy_t d_s) C_t + w_s d_s^T G,
    dC_t = sum_s a_ts (dy_t d_s) B_s + e_t dy_t^T S.

Shape suffixes: J parts of the heads of a group, B batch, L steps, C chunks, H heads,
P channels of a head, G groups, N states, Q steps of a chunk.
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
def ssd_score_gradients(
    X,
    DT,
    GRAD,
    SUMS,
    DSCORES,
    x_b,
    x_l,
    x_h,
    dt_b,
    dt_l,
    dt_h,
    g_b,
    g_l,
    g_h,
    L,
    NC,
    H,
    R,
    J,
    P: tl.constexpr,
    Q: tl.constexpr,
    SLICE: tl.constexpr,
    MIX: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """``DSCORES [B, C, G, J, Q, Q]``: sums of ``a_ts (dy_t d_s)``, rows are t."""
    i_gj, i_c, i_b = place((H // R) * J, NC)
    i_g = i_gj // J
    i_j = i_gj % J
    i = tl.arange(0, Q)
    t = i_c * Q + i
    share = (R + J - 1) // J
    scores = tl.zeros([Q, Q], dtype=tl.float32)
    for i_r in range(i_j * share, tl.minimum((i_j + 1) * share, R)):
        i_h = i_g * R + i_r
        dt = load_steps(DT + i_b * dt_b + i_h * dt_h, dt_l, t, L)
        pairs = tl.zeros([Q, Q], dtype=tl.float32)
        for start in range(0, P, SLICE):
            p = start + tl.arange(0, SLICE)
            x = load_tile(X + i_b * x_b + i_h * x_h, x_l, t, L, p, P).to(tl.float32)
            grad = load_tile(GRAD + i_b * g_b + i_h * g_h, g_l, t, L, p, P)
            drive = tl.trans(x * dt[:, None])
            pairs = product(grad, drive, pairs, MIX, PRECISION)
        sums = SUMS + ((i_b * NC + i_c) * H + i_h) * Q * 2
        scores += pairs * decay_between(sums, i[:, None], i[None, :])
    to = DSCORES + ((i_b * NC + i_c) * (H // R) * J + i_gj) * Q * Q
    tl.store(to + i[:, None] * Q + i[None, :], scores)


@triton.jit(do_not_specialize=('L', 'NC'))
def ssd_group_gradients(
    X,
    DT,
    B,
    C,
    GRAD,
    SUMS,
    DSCORES,
    STATES,
    GRAD_STATES,
    DB,
    DC,
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
    batch,
    L,
    NC,
    H,
    R,
    J,
    P: tl.constexpr,
    N: tl.constexpr,
    Q: tl.constexpr,
    BN: tl.constexpr,
    SLICE: tl.constexpr,
    MIX: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """``DB`` and ``DC [J, B, L, G, N]``, to be summed over the first dimension.

    ``SUMS``, ``STATES`` and ``GRAD_STATES`` are those of ``triton_states``.
    """
    G = H // R
    i_gj, i_c, i_b = place(G * J, NC)
    i_g = i_gj // J
    i_j = i_gj % J
    n = tl.program_id(1) * BN + tl.arange(0, BN)
    i = tl.arange(0, Q)
    t = i_c * Q + i
    share = (R + J - 1) // J
    db = tl.zeros([Q, BN], dtype=tl.float32)
    dc = tl.zeros([Q, BN], dtype=tl.float32)
    for i_r in range(i_j * share, tl.minimum((i_j + 1) * share, R)):
        i_h = i_g * R + i_r
        item = (i_b * NC + i_c) * H + i_h
        sums = SUMS + item * Q * 2
        dt = load_steps(DT + i_b * dt_b + i_h * dt_h, dt_l, t, L)
        for start in range(0, P, SLICE):
            p = start + tl.arange(0, SLICE)
            x = load_tile(X + i_b * x_b + i_h * x_h, x_l, t, L, p, P).to(tl.float32)
            drive = x * (dt * decay_to_end(sums, i, Q))[:, None]
            behind = load_tile(GRAD_STATES + item * P * N, N, p, P, n, N)
            db = product(drive, behind, db, MIX, PRECISION)
            grad = load_tile(GRAD + i_b * g_b + i_h * g_h, g_l, t, L, p, P)
            grad = grad.to(tl.float32) * decay_from_start(sums, i)[:, None]
            state = load_tile(STATES + item * P * N, N, p, P, n, N)
            dc = product(grad, state, dc, MIX, PRECISION)
    scores = DSCORES + ((i_b * NC + i_c) * G * J + i_gj) * Q * Q
    for first in range(0, Q, SLICE):
        j = first + tl.arange(0, SLICE)
        b = load_tile(B + i_b * b_b + i_g * b_h, b_l, i_c * Q + j, L, n, N)
        reads = tl.load(scores + i[:, None] * Q + j[None, :])
        dc = product(reads, b, dc, MIX, PRECISION)
        c = load_tile(C + i_b * c_b + i_g * c_h, c_l, i_c * Q + j, L, n, N)
        writes = tl.load(scores + i[:, None] + j[None, :] * Q)
        db = product(writes, c, db, MIX, PRECISION)
    to = ((i_j * batch + i_b) * L * G + i_g) * N + t[:, None] * (G * N) + n[None, :]
    inside = (t < L)[:, None] & (n < N)[None, :]
    tl.store(DB + to, db.to(DB.dtype.element_ty), mask=inside)
    tl.store(DC + to, dc.to(DC.dtype.element_ty), mask=inside)
