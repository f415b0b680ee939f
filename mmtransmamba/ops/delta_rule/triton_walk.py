"""Triton kernels that walk along the chunks of a sequence, forwards and backwards.

A program keeps some columns of the state S of a head. With the decays e from the start
of a chunk, E over the chunk, the keys K and the matrices of ``triton_prepare``,

    errors  U = solved (V - (e K) S),  written values  W = beta U,
    output  Y = s (e Q) S + reads W,
    state   S' = E S + (E / e K)^T W.

Backwards, the gradient G of the state after a chunk takes the place of the state:

    dW = reads^T dY + (E / e K) G,
    dV = solved^T (beta dW),
    G' = E G + s (e Q)^T dY - (e K)^T dV.
"""

import triton
import triton.language as tl

from .triton_tiles import load_rows, load_square, load_sums, load_total


@triton.jit
def decayed_keys(
    base,
    stride,
    HIGH,
    LOW,
    t,
    c,
    live,
    KEYS: tl.constexpr,
    TO_END: tl.constexpr,
    CHANNEL: tl.constexpr,
    BT: tl.constexpr,
):
    """Keys or queries times the decay from the start of the chunk, or to its end."""
    inside = c < KEYS
    x = load_rows(base, stride, t, c, live, inside)
    high, low = load_sums(HIGH, LOW, t, c, inside, KEYS, CHANNEL)
    if TO_END:
        whole = load_total(HIGH, LOW, c, inside, KEYS, CHANNEL, BT)
        return x * tl.exp2((whole[0][None, :] - high) + (whole[1][None, :] - low))
    else:
        return x * tl.exp2(high + low)


@triton.jit
def whole_decay(HIGH, LOW, c, KEYS, CHANNEL: tl.constexpr, BT: tl.constexpr):
    """Decay over the chunk, in rows for the key channels."""
    high, low = load_total(HIGH, LOW, c, c < KEYS, KEYS, CHANNEL, BT)
    return tl.exp2(high + low)[:, None]


@triton.jit(do_not_specialize=('L', 'NC'))
def delta_walk(
    QUERY,
    KEY,
    VALUE,
    BETA,
    HIGH,
    LOW,
    READS,
    SOLVED,
    START,
    Y,
    STATES,
    ERRORS,
    LAST,
    q_b,
    q_l,
    q_h,
    k_b,
    k_l,
    k_h,
    v_b,
    v_l,
    v_h,
    beta_b,
    beta_l,
    beta_h,
    scale,
    L,
    NC,
    H,
    REPEATS,
    KEYS: tl.constexpr,
    VALUES: tl.constexpr,
    BT: tl.constexpr,
    BK: tl.constexpr,
    NK: tl.constexpr,
    BV: tl.constexpr,
    CHANNEL: tl.constexpr,
    KEEP: tl.constexpr,
    HAS_START: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Output and last state, or if ``KEEP`` the states before the chunks and errors.

    ``Y`` and ``ERRORS`` are ``[B, L, H, VALUES]``, ``STATES`` are
    ``[B * H, NC, KEYS, VALUES]``.
    """
    blocks = tl.cdiv(VALUES, BV)
    d = (tl.program_id(0) % blocks) * BV + tl.arange(0, BV)
    held = d < VALUES
    i_bh = (tl.program_id(0) // blocks).to(tl.int64)
    i_b = i_bh // H
    i_h = i_bh % H
    q_base = QUERY + i_b * q_b + (i_h // REPEATS) * q_h
    k_base = KEY + i_b * k_b + (i_h // REPEATS) * k_h
    v_base = VALUE + i_b * v_b + i_h * v_h
    beta_base = BETA + i_b * beta_b + i_h * beta_h
    whole = i_bh * KEYS * VALUES
    width = 1
    if CHANNEL:
        width = KEYS
    t = tl.arange(0, BT)
    state = ()
    for g in tl.static_range(NK):
        c = g * BK + tl.arange(0, BK)
        cell = c[:, None] * VALUES + d[None, :]
        there = (c < KEYS)[:, None] & held[None, :]
        if HAS_START:
            state = state + (tl.load(START + whole + cell, mask=there, other=0.0),)
        else:
            state = state + (tl.zeros([BK, BV], dtype=tl.float32),)
    for n in tl.range(0, NC, disable_licm=True):
        i_n = i_bh * NC + n
        first = (i_n - i_bh * NC) * BT
        live = t < L - first
        high = HIGH + i_n * BT * width
        low = LOW + i_n * BT * width
        error = load_rows(v_base + first * v_l, v_l, t, d, live, held)
        for g in tl.static_range(NK):
            c = g * BK + tl.arange(0, BK)
            if KEEP:
                cell = c[:, None] * VALUES + d[None, :]
                there = (c < KEYS)[:, None] & held[None, :]
                tl.store(STATES + i_n * KEYS * VALUES + cell, state[g], mask=there)
            key = decayed_keys(
                k_base + first * k_l,
                k_l,
                high,
                low,
                t,
                c,
                live,
                KEYS,
                False,
                CHANNEL,
                BT,
            )
            error -= tl.dot(key, state[g], input_precision=PRECISION)
        solved = load_square(SOLVED + i_n * BT * BT, t, BT)
        error = tl.dot(solved, error, input_precision=PRECISION)
        at = beta_base + first * beta_l + t * beta_l
        beta = tl.load(at, mask=live, other=0.0).to(tl.float32)
        write = error * beta[:, None]
        row = ((i_b * L + first) * H + i_h) * VALUES
        out = t[:, None] * (H * VALUES) + d[None, :]
        known = live[:, None] & held[None, :]
        if KEEP:
            tl.store(ERRORS + row + out, error, mask=known)
        else:
            reads = load_square(READS + i_n * BT * BT, t, BT)
            y = tl.dot(reads, write, input_precision=PRECISION)
            for g in tl.static_range(NK):
                c = g * BK + tl.arange(0, BK)
                query = decayed_keys(
                    q_base + first * q_l,
                    q_l,
                    high,
                    low,
                    t,
                    c,
                    live,
                    KEYS,
                    False,
                    CHANNEL,
                    BT,
                )
                y += tl.dot(query * scale, state[g], input_precision=PRECISION)
            tl.store(Y + row + out, y.to(Y.dtype.element_ty), mask=known)
        moved = ()
        for g in tl.static_range(NK):
            c = g * BK + tl.arange(0, BK)
            key = decayed_keys(
                k_base + first * k_l,
                k_l,
                high,
                low,
                t,
                c,
                live,
                KEYS,
                True,
                CHANNEL,
                BT,
            )
            kept = state[g] * whole_decay(high, low, c, KEYS, CHANNEL, BT)
            moved = moved + (
                kept + tl.dot(tl.trans(key), write, input_precision=PRECISION),
            )
        state = moved
    if not KEEP:
        for g in tl.static_range(NK):
            c = g * BK + tl.arange(0, BK)
            cell = c[:, None] * VALUES + d[None, :]
            there = (c < KEYS)[:, None] & held[None, :]
            tl.store(LAST + whole + cell, state[g], mask=there)


@triton.jit(do_not_specialize=('L', 'NC'))
def delta_walk_back(
    QUERY,
    KEY,
    BETA,
    HIGH,
    LOW,
    READS,
    SOLVED,
    ERRORS,
    GRAD,
    GRAD_LAST,
    GRADS,
    DV,
    DBETA,
    DSTART,
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
    KEYS: tl.constexpr,
    VALUES: tl.constexpr,
    BT: tl.constexpr,
    BK: tl.constexpr,
    NK: tl.constexpr,
    BV: tl.constexpr,
    CHANNEL: tl.constexpr,
    HAS_GRAD_LAST: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Gradients of the states after the chunks, of the values and the first state.

    ``GRADS [B * H, NC, KEYS, VALUES]``, ``DV [B, L, H, VALUES]``. ``DBETA
    [blocks, B * H, NC * BT]`` gets a part of the gradient of ``beta`` from each block
    of columns: the products of errors and gradients of the written values.
    """
    # Three products of TF32 hold two parts of each factor: in float32, with 64 key
    # channels, 96 bytes of a lane do not fit in its registers. Compiled and no better:
    # tiles of 16 key channels (216 bytes), eight warps (16 bytes, but nearly as many
    # operations in each of twice the warps), and what needs dy first (112 bytes).
    blocks = tl.cdiv(VALUES, BV)
    i_v = tl.program_id(0) % blocks
    d = i_v * BV + tl.arange(0, BV)
    held = d < VALUES
    i_bh = (tl.program_id(0) // blocks).to(tl.int64)
    i_b = i_bh // H
    i_h = i_bh % H
    q_base = QUERY + i_b * q_b + (i_h // REPEATS) * q_h
    k_base = KEY + i_b * k_b + (i_h // REPEATS) * k_h
    beta_base = BETA + i_b * beta_b + i_h * beta_h
    grad_base = GRAD + i_b * grad_b + i_h * grad_h
    part = DBETA + (i_v * (tl.num_programs(0) // blocks) + i_bh) * NC * BT
    whole = i_bh * KEYS * VALUES
    width = 1
    if CHANNEL:
        width = KEYS
    t = tl.arange(0, BT)
    behind = ()
    for g in tl.static_range(NK):
        c = g * BK + tl.arange(0, BK)
        cell = c[:, None] * VALUES + d[None, :]
        there = (c < KEYS)[:, None] & held[None, :]
        if HAS_GRAD_LAST:
            behind = behind + (
                tl.load(GRAD_LAST + whole + cell, mask=there, other=0.0),
            )
        else:
            behind = behind + (tl.zeros([BK, BV], dtype=tl.float32),)
    for i in tl.range(0, NC, disable_licm=True):
        n = NC - 1 - i
        i_n = i_bh * NC + n
        first = (i_n - i_bh * NC) * BT
        live = t < L - first
        high = HIGH + i_n * BT * width
        low = LOW + i_n * BT * width
        dy = load_rows(grad_base + first * grad_l, grad_l, t, d, live, held)
        reads = load_square(READS + i_n * BT * BT, t, BT)
        written = tl.dot(tl.trans(reads), dy, input_precision=PRECISION)
        for g in tl.static_range(NK):
            c = g * BK + tl.arange(0, BK)
            cell = c[:, None] * VALUES + d[None, :]
            there = (c < KEYS)[:, None] & held[None, :]
            tl.store(GRADS + i_n * KEYS * VALUES + cell, behind[g], mask=there)
            key = decayed_keys(
                k_base + first * k_l,
                k_l,
                high,
                low,
                t,
                c,
                live,
                KEYS,
                True,
                CHANNEL,
                BT,
            )
            written += tl.dot(key, behind[g], input_precision=PRECISION)
        row = ((i_b * L + first) * H + i_h) * VALUES
        out = t[:, None] * (H * VALUES) + d[None, :]
        known = live[:, None] & held[None, :]
        error = tl.load(ERRORS + row + out, mask=known, other=0.0)
        tl.store(part + first + t, tl.sum(error * written, axis=1))
        at = beta_base + first * beta_l + t * beta_l
        beta = tl.load(at, mask=live, other=0.0).to(tl.float32)
        solved = load_square(SOLVED + i_n * BT * BT, t, BT)
        dv = tl.dot(
            tl.trans(solved), written * beta[:, None], input_precision=PRECISION
        )
        tl.store(DV + row + out, dv, mask=known)
        moved = ()
        for g in tl.static_range(NK):
            c = g * BK + tl.arange(0, BK)
            query = decayed_keys(
                q_base + first * q_l,
                q_l,
                high,
                low,
                t,
                c,
                live,
                KEYS,
                False,
                CHANNEL,
                BT,
            )
            key = decayed_keys(
                k_base + first * k_l,
                k_l,
                high,
                low,
                t,
                c,
                live,
                KEYS,
                False,
                CHANNEL,
                BT,
            )
            before = behind[g] * whole_decay(high, low, c, KEYS, CHANNEL, BT)
            before += tl.dot(tl.trans(query * scale), dy, input_precision=PRECISION)
            before += tl.dot(tl.trans(key), -dv, input_precision=PRECISION)
            moved = moved + (before,)
        behind = moved
    for g in tl.static_range(NK):
        c = g * BK + tl.arange(0, BK)
        cell = c[:, None] * VALUES + d[None, :]
        there = (c < KEYS)[:, None] & held[None, :]
        tl.store(DSTART + whole + cell, behind[g], mask=there)
