"""Triton kernels of the delta rule with one decay per key channel.

The product of a query and a key has a decay of its own for every channel, so that it is
not an ordinary matrix product. Between two blocks of 16 steps it becomes one, with the
decay divided at the start of the later block: both parts are decays, and nothing
overflows. Within a block, steps are taken one by one.
"""

import triton
import triton.language as tl

from .triton_tiles import load_rows, load_sums, load_total

BLOCK = tl.constexpr(16)


@triton.jit
def load_row(base, stride, HIGH, LOW, n, c, live, inside, KEYS):
    """Channels of one step in float32, and the parts of its sum of log decays."""
    x = tl.load(base + n * stride + c, mask=inside & live, other=0.0).to(tl.float32)
    high = tl.load(HIGH + n * KEYS + c, mask=inside, other=0.0)
    return x, high, tl.load(LOW + n * KEYS + c, mask=inside, other=0.0)


@triton.jit
def load_edge(HIGH, LOW, first, c, inside, KEYS):
    """Sums of log decays up to the step before a block, as one row."""
    at = (first - 1) * KEYS + c
    high = tl.load(HIGH + at, mask=inside, other=0.0)[None, :]
    return high, tl.load(LOW + at, mask=inside, other=0.0)[None, :]


@triton.jit(do_not_specialize=('L', 'NC'))
def delta_channel_products(
    QUERY,
    KEY,
    HIGH,
    LOW,
    RECALLS,
    READS,
    q_b,
    q_l,
    q_h,
    k_b,
    k_l,
    k_h,
    scale,
    L,
    NC,
    H,
    REPEATS,
    KEYS,
    BT: tl.constexpr,
    BK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Recalls and reads of one block of rows, see ``triton_prepare``."""
    NB: tl.constexpr = BT // BLOCK
    a = tl.program_id(0) % NB
    pid = (tl.program_id(0) // NB).to(tl.int64)
    start = (pid % NC) * BT
    i_b = pid // NC // H
    i_h = pid // NC % H
    q_base = QUERY + i_b * q_b + (i_h // REPEATS) * q_h + start * q_l
    k_base = KEY + i_b * k_b + (i_h // REPEATS) * k_h + start * k_l
    HIGH += pid * BT * KEYS
    LOW += pid * BT * KEYS
    step = tl.arange(0, BLOCK)
    i = a * BLOCK + step
    RECALLS += pid * BT * BT
    READS += pid * BT * BT
    square = i[:, None] * BT
    for b in range(0, a):
        j = b * BLOCK + step
        m = tl.zeros([BLOCK, BLOCK], dtype=tl.float32)
        p = tl.zeros([BLOCK, BLOCK], dtype=tl.float32)
        for first in range(0, KEYS, BK):
            c = first + tl.arange(0, BK)
            inside = c < KEYS
            edge = load_edge(HIGH, LOW, a * BLOCK, c, inside, KEYS)
            high, low = load_sums(HIGH, LOW, i, c, inside, KEYS, True)
            since = tl.exp2((high - edge[0]) + (low - edge[1]))
            high, low = load_sums(HIGH, LOW, j, c, inside, KEYS, True)
            other = load_rows(k_base, k_l, j, c, start + j < L, inside)
            other *= tl.exp2((edge[0] - high) + (edge[1] - low))
            key = load_rows(k_base, k_l, i, c, start + i < L, inside) * since
            query = load_rows(q_base, q_l, i, c, start + i < L, inside) * since
            m += tl.dot(key, tl.trans(other), input_precision=PRECISION)
            p += tl.dot(query, tl.trans(other), input_precision=PRECISION)
        tl.store(RECALLS + square + j[None, :], m)
        tl.store(READS + square + j[None, :], p * scale)
    m = tl.zeros([BLOCK, BLOCK], dtype=tl.float32)
    p = tl.zeros([BLOCK, BLOCK], dtype=tl.float32)
    for first in range(0, KEYS, BK):
        c = first + tl.arange(0, BK)
        inside = c < KEYS
        high, low = load_sums(HIGH, LOW, i, c, inside, KEYS, True)
        key = load_rows(k_base, k_l, i, c, start + i < L, inside)
        query = load_rows(q_base, q_l, i, c, start + i < L, inside)
        for n in range(BLOCK):
            j = a * BLOCK + n
            one = load_row(k_base, k_l, HIGH, LOW, j, c, start + j < L, inside, KEYS)
            log = (high - one[1][None, :]) + (low - one[2][None, :])
            later = step[:, None] >= n
            other = one[0][None, :] * tl.exp2(tl.where(later, log, 0.0))
            here = later & (step[None, :] == n)
            m += tl.where(here, tl.sum(key * other, axis=1)[:, None], 0.0)
            p += tl.where(here, tl.sum(query * other, axis=1)[:, None], 0.0)
    m = tl.where(step[:, None] > step[None, :], m, 0.0)
    tl.store(RECALLS + square + i[None, :], m)
    tl.store(READS + square + i[None, :], p * scale)


@triton.jit(do_not_specialize=('L', 'NC'))
def delta_channel_keys(
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
    DQ,
    DK,
    UP_TO,
    ON_FROM,
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
    """Gradients of queries and keys of one block, ``[B, L, H, KEYS]``.

    ``UP_TO`` and ``ON_FROM [B * H, NC * BT, KEYS]`` get the parts of the gradients of
    the log decays of all steps up to each one, and of all steps behind it.
    """
    NB: tl.constexpr = BT // BLOCK
    tiles = tl.cdiv(KEYS, BK)
    c = (tl.program_id(0) % tiles) * BK + tl.arange(0, BK)
    inside = c < KEYS
    a = tl.program_id(0) // tiles % NB
    pid = (tl.program_id(0) // tiles // NB).to(tl.int64)
    start = (pid % NC) * BT
    i_b = pid // NC // H
    i_h = pid // NC % H
    step = tl.arange(0, BLOCK)
    i = a * BLOCK + step
    live = start + i < L
    q_base = QUERY + i_b * q_b + (i_h // REPEATS) * q_h + start * q_l
    k_base = KEY + i_b * k_b + (i_h // REPEATS) * k_h + start * k_l
    grad_base = GRAD + i_b * grad_b + i_h * grad_h + start * grad_l
    row = ((i_b * L + start) * H + i_h) * VALUES
    HIGH += pid * BT * KEYS
    LOW += pid * BT * KEYS
    high, low = load_sums(HIGH, LOW, i, c, inside, KEYS, True)
    whole = load_total(HIGH, LOW, c, inside, KEYS, True, BT)
    at = BETA + i_b * beta_b + i_h * beta_h + (start + i) * beta_l
    beta = tl.load(at, mask=live, other=0.0).to(tl.float32)
    dq = tl.zeros([BLOCK, BK], dtype=tl.float32)
    dk = tl.zeros([BLOCK, BK], dtype=tl.float32)
    dk_end = tl.zeros([BLOCK, BK], dtype=tl.float32)
    for first in range(0, VALUES, BV):
        d = first + tl.arange(0, BV)
        held = d < VALUES
        cell = c[:, None] * VALUES + d[None, :]
        known = inside[:, None] & held[None, :]
        state = tl.load(STATES + pid * KEYS * VALUES + cell, mask=known, other=0.0)
        dy = load_rows(grad_base, grad_l, i, d, live, held)
        dq += tl.dot(dy, tl.trans(state), input_precision=PRECISION)
        dv = load_rows(DV + row, H * VALUES, i, d, live, held)
        dk -= tl.dot(dv, tl.trans(state), input_precision=PRECISION)
        behind = tl.load(GRADS + pid * KEYS * VALUES + cell, mask=known, other=0.0)
        write = load_rows(ERRORS + row, H * VALUES, i, d, live, held)
        write *= beta[:, None]
        dk_end += tl.dot(write, tl.trans(behind), input_precision=PRECISION)
    query = load_rows(q_base, q_l, i, c, live, inside)
    key = load_rows(k_base, k_l, i, c, live, inside)
    from_start = tl.exp2(high + low)
    dq *= from_start * scale
    dk *= from_start
    dk_end *= tl.exp2((whole[0][None, :] - high) + (whole[1][None, :] - low))
    up_to = query * dq + key * dk
    to = i[:, None] * KEYS + c[None, :]
    known = inside[None, :] & (i >= 0)[:, None]
    tl.store(ON_FROM + pid * BT * KEYS + to, key * dk_end, mask=known)
    dk += dk_end
    # The keys of earlier blocks.
    DRECALLS += pid * BT * BT
    DREADS += pid * BT * BT
    rows_q = tl.zeros([BLOCK, BK], dtype=tl.float32)
    rows_k = tl.zeros([BLOCK, BK], dtype=tl.float32)
    edge = load_edge(HIGH, LOW, a * BLOCK, c, inside & (a > 0), KEYS)
    for b in range(0, a):
        j = b * BLOCK + step
        between = load_sums(HIGH, LOW, j, c, inside, KEYS, True)
        other = load_rows(k_base, k_l, j, c, start + j < L, inside)
        other *= tl.exp2((edge[0] - between[0]) + (edge[1] - between[1]))
        cell = i[:, None] * BT + j[None, :]
        rows_q += tl.dot(tl.load(DREADS + cell), other, input_precision=PRECISION)
        rows_k += tl.dot(tl.load(DRECALLS + cell), other, input_precision=PRECISION)
    since = tl.exp2((high - edge[0]) + (low - edge[1]))
    rows_q *= since
    rows_k *= since
    # The keys and queries of later blocks.
    columns = tl.zeros([BLOCK, BK], dtype=tl.float32)
    for b in range(a + 1, NB):
        j = b * BLOCK + step
        edge = load_edge(HIGH, LOW, b * BLOCK, c, inside, KEYS)
        between = load_sums(HIGH, LOW, j, c, inside, KEYS, True)
        since = tl.exp2((between[0] - edge[0]) + (between[1] - edge[1]))
        cell = j[None, :] * BT + i[:, None]
        other = load_rows(q_base, q_l, j, c, start + j < L, inside) * since
        found = tl.dot(tl.load(DREADS + cell), other, input_precision=PRECISION)
        other = load_rows(k_base, k_l, j, c, start + j < L, inside) * since
        found += tl.dot(tl.load(DRECALLS + cell), other, input_precision=PRECISION)
        columns += found * tl.exp2((edge[0] - high) + (edge[1] - low))
    # The steps of this block.
    for n in range(BLOCK):
        j = a * BLOCK + n
        one = load_row(k_base, k_l, HIGH, LOW, j, c, start + j < L, inside, KEYS)
        log = (high - one[1][None, :]) + (low - one[2][None, :])
        later = step > n
        other = one[0][None, :] * tl.exp2(tl.where(later[:, None], log, 0.0))
        cell = i * BT + j
        reads = tl.load(DREADS + cell, mask=later, other=0.0)
        recalls = tl.load(DRECALLS + cell, mask=later, other=0.0)
        rows_q += reads[:, None] * other
        rows_k += recalls[:, None] * other
        earlier = step < n
        decay = tl.exp2(tl.where(earlier[:, None], -log, 0.0))
        cell = j * BT + i
        reads = tl.load(DREADS + cell, mask=earlier, other=0.0)
        recalls = tl.load(DRECALLS + cell, mask=earlier, other=0.0)
        asked = tl.load(
            q_base + j * q_l + c, mask=inside & (start + j < L), other=0.0
        ).to(tl.float32)
        found = reads[:, None] * asked[None, :] + recalls[:, None] * one[0][None, :]
        columns += found * decay
    up_to += query * rows_q + key * (rows_k - columns)
    tl.store(UP_TO + pid * BT * KEYS + to, up_to, mask=known)
    # A step's query reads its own key, which nothing decays.
    own = tl.load(DREADS + i * BT + i)[:, None]
    dq += rows_q + own * key
    dk += rows_k + columns + own * query
    to = ((i_b * L + start) * H + i_h) * KEYS
    out = i[:, None] * (H * KEYS) + c[None, :]
    known = live[:, None] & inside[None, :]
    tl.store(DQ + to + out, dq.to(DQ.dtype.element_ty), mask=known)
    tl.store(DK + to + out, dk.to(DK.dtype.element_ty), mask=known)


@triton.jit(do_not_specialize=('L', 'NC'))
def delta_channel_gates(
    GATE,
    HIGH,
    LOW,
    STATES,
    GRADS,
    UP_TO,
    ON_FROM,
    DG,
    g_b,
    g_l,
    g_h,
    L,
    NC,
    H,
    KEYS,
    VALUES,
    BT: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
):
    """Gradient of the log decays ``[B, L, H, KEYS]``, zero if they clear the state."""
    tiles = tl.cdiv(KEYS, BK)
    c = (tl.program_id(0) % tiles) * BK + tl.arange(0, BK)
    inside = c < KEYS
    pid = (tl.program_id(0) // tiles).to(tl.int64)
    start = (pid % NC) * BT
    i_b = pid // NC // H
    i_h = pid // NC % H
    overall = tl.zeros([BK], dtype=tl.float32)
    for first in range(0, VALUES, BV):
        d = first + tl.arange(0, BV)
        cell = c[:, None] * VALUES + d[None, :]
        known = inside[:, None] & (d < VALUES)[None, :]
        state = tl.load(STATES + pid * KEYS * VALUES + cell, mask=known, other=0.0)
        behind = tl.load(GRADS + pid * KEYS * VALUES + cell, mask=known, other=0.0)
        overall += tl.sum(state * behind, axis=1)
    high, low = load_total(
        HIGH + pid * BT * KEYS, LOW + pid * BT * KEYS, c, inside, KEYS, True, BT
    )
    t = tl.arange(0, BT)
    at = t[:, None] * KEYS + c[None, :]
    known = inside[None, :] & (t >= 0)[:, None]
    up_to = tl.load(UP_TO + pid * BT * KEYS + at, mask=known, other=0.0)
    on_from = tl.load(ON_FROM + pid * BT * KEYS + at, mask=known, other=0.0)
    dg = tl.cumsum(up_to, axis=0, reverse=True) + tl.cumsum(on_from, axis=0) - on_from
    dg += (overall * tl.exp2(high + low))[None, :]
    live = start + t < L
    base = GATE + i_b * g_b + i_h * g_h + start * g_l
    gate = load_rows(base, g_l, t, c, live, inside)
    dg = tl.where(gate * 1.4426950408889634 > -160.0, dg, 0.0)
    to = ((i_b * L + start) * H + i_h) * KEYS
    out = t[:, None] * (H * KEYS) + c[None, :]
    tl.store(DG + to + out, dg, mask=live[:, None] & inside[None, :])
