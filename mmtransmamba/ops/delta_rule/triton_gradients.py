"""Triton kernels of the gradients of the delta rule, all chunks side by side.

In the notation of ``triton_walk``, with strict lower triangles where j < i,

    dP = dY W^T,  dM_ij = -(dV U^T)_ij beta_j,
    dbeta_j = (U dW)_j - sum_i (dV U^T)_ij M_ij,
    d(e Q) = s dY S^T,  d(e K) = -dV S^T,  d(E / e K) = W G^T,  dE = G S.

A log decay g_t acts on what passes step t: on the state up to the steps i >= t, from
the steps j < t to the end, and from j < t to i >= t. Its gradient is a sum over these,
in which nothing cancels.
"""

import triton
import triton.language as tl

from .triton_tiles import load_rows, load_square


@triton.jit(do_not_specialize=('L', 'NC'))
def delta_pairs(
    BETA,
    HIGH,
    LOW,
    RECALLS,
    READS,
    ERRORS,
    GRAD,
    DV,
    PARTS,
    DRECALLS,
    DREADS,
    DBETA,
    DGATE,
    beta_b,
    beta_l,
    beta_h,
    grad_b,
    grad_l,
    grad_h,
    scale,
    L,
    NC,
    H,
    VALUES,
    part,
    BLOCKS: tl.constexpr,
    BT: tl.constexpr,
    BV: tl.constexpr,
    CHANNEL: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Gradients of the matrices of one chunk and of ``beta``.

    ``DRECALLS`` and ``DREADS [B * H, NC, BT, BT]`` are the gradients of the products of
    keys, and of queries times keys, before their decay, or with one decay per channel
    after it. ``DGATE [B * H, NC, BT]`` gets what a decay per head does between steps.
    ``part`` is the number of elements of a part of ``PARTS``, see ``delta_walk_back``.
    """
    pid = tl.program_id(0).to(tl.int64)
    start = (pid % NC) * BT
    i_b = pid // NC // H
    i_h = pid // NC % H
    t = tl.arange(0, BT)
    live = t < L - start
    grad_base = GRAD + i_b * grad_b + i_h * grad_h + start * grad_l
    row = ((i_b * L + start) * H + i_h) * VALUES
    dp = tl.zeros([BT, BT], dtype=tl.float32)
    dm = tl.zeros([BT, BT], dtype=tl.float32)
    for first in range(0, VALUES, BV):
        d = first + tl.arange(0, BV)
        held = d < VALUES
        error = load_rows(ERRORS + row, H * VALUES, t, d, live, held)
        dy = load_rows(grad_base, grad_l, t, d, live, held)
        dp += tl.dot(dy, tl.trans(error), input_precision=PRECISION)
        dv = load_rows(DV + row, H * VALUES, t, d, live, held)
        dm += tl.dot(dv, tl.trans(error), input_precision=PRECISION)
    at = BETA + i_b * beta_b + i_h * beta_h + (start + t) * beta_l
    beta = tl.load(at, mask=live, other=0.0).to(tl.float32)
    square = pid * BT * BT
    before = t[:, None] > t[None, :]
    recalls = tl.where(before, load_square(RECALLS + square, t, BT), 0.0)
    dbeta = -tl.sum(dm * recalls, axis=0)
    for i in tl.static_range(BLOCKS):
        dbeta += tl.load(PARTS + i * part + pid * BT + t)
    tl.store(DBETA + (i_b * L + start + t) * H + i_h, dbeta, mask=live)
    dp = tl.where(t[:, None] >= t[None, :], dp * beta[None, :], 0.0)
    dm = tl.where(before, -dm * beta[None, :], 0.0)
    if CHANNEL:
        dp *= scale
    else:
        reads = load_square(READS + square, t, BT)
        between = tl.where(before, dm * recalls + dp * reads, 0.0)
        later = tl.where(t[:, None] <= t[None, :], 1.0, 0.0)
        passing = tl.dot(later, between, input_precision=PRECISION)
        gate = tl.sum(tl.where(before, passing, 0.0), axis=1)
        tl.store(DGATE + pid * BT + t, gate)
        high = tl.load(HIGH + pid * BT + t)
        low = tl.load(LOW + pid * BT + t)
        log = (high[:, None] - high[None, :]) + (low[:, None] - low[None, :])
        decay = tl.exp2(tl.where(before, log, 0.0))
        dm *= decay
        dp *= decay * scale
    cell = t[:, None] * BT + t[None, :]
    tl.store(DRECALLS + square + cell, dm)
    tl.store(DREADS + square + cell, dp)


@triton.jit(do_not_specialize=('L', 'NC'))
def delta_keys(
    QUERY,
    KEY,
    BETA,
    HIGH,
    LOW,
    ERRORS,
    GRAD,
    DV,
    STATES,
    GRADS,
    DRECALLS,
    DREADS,
    DGATE,
    DQ,
    DK,
    DG,
    q_b,
    q_l,
    q_h,
    k_b,
    k_l,
    k_h,
    beta_b,
    beta_l,
    beta_h,
    grad_b,
    grad_l,
    grad_h,
    scale,
    L,
    NC,
    H,
    REPEATS,
    KEYS,
    VALUES,
    BT: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Gradients of queries and keys ``[B, L, H, KEYS]`` and one decay per head."""
    pid = tl.program_id(0).to(tl.int64)
    start = (pid % NC) * BT
    i_b = pid // NC // H
    i_h = pid // NC % H
    t = tl.arange(0, BT)
    live = t < L - start
    q_base = QUERY + i_b * q_b + (i_h // REPEATS) * q_h + start * q_l
    k_base = KEY + i_b * k_b + (i_h // REPEATS) * k_h + start * k_l
    grad_base = GRAD + i_b * grad_b + i_h * grad_h + start * grad_l
    row = ((i_b * L + start) * H + i_h) * VALUES
    at = BETA + i_b * beta_b + i_h * beta_h + (start + t) * beta_l
    beta = tl.load(at, mask=live, other=0.0).to(tl.float32)
    high = tl.load(HIGH + pid * BT + t)
    low = tl.load(LOW + pid * BT + t)
    high_end = tl.load(HIGH + pid * BT + BT - 1)
    low_end = tl.load(LOW + pid * BT + BT - 1)
    from_start = tl.exp2(high + low)
    to_end = tl.exp2((high_end - high) + (low_end - low))
    # What the decay does to the state up to a step, from a step to the end, overall.
    up_to = tl.zeros([BT], dtype=tl.float32)
    on_from = tl.zeros([BT], dtype=tl.float32)
    overall = tl.zeros([BK], dtype=tl.float32)
    for at_key in range(0, KEYS, BK):
        c = at_key + tl.arange(0, BK)
        inside = c < KEYS
        dq = tl.zeros([BT, BK], dtype=tl.float32)
        dk = tl.zeros([BT, BK], dtype=tl.float32)
        dk_end = tl.zeros([BT, BK], dtype=tl.float32)
        for first in range(0, VALUES, BV):
            d = first + tl.arange(0, BV)
            held = d < VALUES
            cell = c[:, None] * VALUES + d[None, :]
            known = inside[:, None] & held[None, :]
            state = tl.load(STATES + pid * KEYS * VALUES + cell, mask=known, other=0.0)
            behind = tl.load(GRADS + pid * KEYS * VALUES + cell, mask=known, other=0.0)
            overall += tl.sum(state * behind, axis=1)
            dy = load_rows(grad_base, grad_l, t, d, live, held)
            dq += tl.dot(dy, tl.trans(state), input_precision=PRECISION)
            dv = load_rows(DV + row, H * VALUES, t, d, live, held)
            dk -= tl.dot(dv, tl.trans(state), input_precision=PRECISION)
            write = load_rows(ERRORS + row, H * VALUES, t, d, live, held)
            write *= beta[:, None]
            dk_end += tl.dot(write, tl.trans(behind), input_precision=PRECISION)
        query = load_rows(q_base, q_l, t, c, live, inside)
        key = load_rows(k_base, k_l, t, c, live, inside)
        dq *= (from_start * scale)[:, None]
        dk *= from_start[:, None]
        dk_end *= to_end[:, None]
        up_to += tl.sum(query * dq + key * dk, axis=1)
        on_from += tl.sum(key * dk_end, axis=1)
        dk += dk_end
        reads = load_square(DREADS + pid * BT * BT, t, BT)
        dq += tl.dot(reads, key, input_precision=PRECISION)
        dk += tl.dot(tl.trans(reads), query, input_precision=PRECISION)
        recalls = load_square(DRECALLS + pid * BT * BT, t, BT)
        dk += tl.dot(recalls, key, input_precision=PRECISION)
        dk += tl.dot(tl.trans(recalls), key, input_precision=PRECISION)
        to = ((i_b * L + start) * H + i_h) * KEYS
        out = t[:, None] * (H * KEYS) + c[None, :]
        known = live[:, None] & inside[None, :]
        tl.store(DQ + to + out, dq.to(DQ.dtype.element_ty), mask=known)
        tl.store(DK + to + out, dk.to(DK.dtype.element_ty), mask=known)
    dg = tl.load(DGATE + pid * BT + t) + tl.cumsum(up_to, axis=0, reverse=True)
    dg += tl.cumsum(on_from, axis=0) - on_from
    dg += tl.sum(overall) * tl.exp2(high_end + low_end)
    tl.store(DG + (i_b * L + start + t) * H + i_h, dg, mask=live)
