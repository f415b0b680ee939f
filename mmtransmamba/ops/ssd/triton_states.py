"""Triton kernels of what SSD's other kernels need of every chunk.

Shape suffixes: B batch, C chunks, H heads, P channels of a head, G groups, N states,
Q steps of a chunk.
"""

import triton
import triton.language as tl

from .triton_math import (
    decay_from_start,
    decay_to_end,
    load_steps,
    load_sums,
    load_tile,
    place,
    product,
)


@triton.jit(do_not_specialize=('L', 'NC'))
def ssd_decays(
    DT,
    A,
    SUMS,
    dt_b,
    dt_l,
    dt_h,
    L,
    NC,
    H,
    Q: tl.constexpr,
):
    """Base-2 logarithms of decays, summed from the start of the chunk.

    A decay is the exponential of a difference of these sums. After a strong decay, a
    weak one would be lost in the rounding of float32. ``SUMS [B, C, H, Q, 2]`` has
    whole numbers, whose differences are exact, and rests between 0 and 1.
    Infinity minus infinity would be NaN: a logarithm is at least -32768, whose
    exponential is 0 as well.
    """
    i_h, i_c, i_b = place(H, NC)
    i = tl.arange(0, Q)
    dt = load_steps(DT + i_b * dt_b + i_h * dt_h, dt_l, i_c * Q + i, L)
    log = tl.maximum(dt * tl.load(A + i_h) * 1.4426950408889634, -32768.0)
    total = tl.cumsum(log.to(tl.float64), axis=0)
    whole = tl.floor(total)
    to = SUMS + ((i_b * NC + i_c) * H + i_h) * Q * 2 + 2 * i
    tl.store(to, whole.to(tl.float32))
    tl.store(to + 1, (total - whole).to(tl.float32))


@triton.jit(do_not_specialize=('L', 'NC'))
def ssd_scores(
    B,
    C,
    SCORES,
    b_b,
    b_l,
    b_h,
    c_b,
    c_l,
    c_h,
    L,
    NC,
    G,
    N: tl.constexpr,
    Q: tl.constexpr,
    SLICE: tl.constexpr,
    MIX: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """``SCORES [B, C, G, Q, Q]``: of every step's C (rows) and every step's B."""
    i_g, i_c, i_b = place(G, NC)
    i = tl.arange(0, Q)
    t = i_c * Q + i
    scores = tl.zeros([Q, Q], dtype=tl.float32)
    for first in range(0, N, SLICE):
        n = first + tl.arange(0, SLICE)
        b = load_tile(B + i_b * b_b + i_g * b_h, b_l, t, L, n, N)
        c = load_tile(C + i_b * c_b + i_g * c_h, c_l, t, L, n, N)
        scores = product(c, tl.trans(b), scores, MIX, PRECISION)
    to = SCORES + ((i_b * NC + i_c) * G + i_g) * Q * Q
    tl.store(to + i[:, None] * Q + i[None, :], scores)


@triton.jit(do_not_specialize=('L', 'NC'))
def ssd_chunk_states(
    X,
    DT,
    M,
    SUMS,
    STATES,
    x_b,
    x_l,
    x_h,
    dt_b,
    dt_l,
    dt_h,
    m_b,
    m_l,
    m_h,
    L,
    NC,
    H,
    R,
    P: tl.constexpr,
    N: tl.constexpr,
    Q: tl.constexpr,
    BP: tl.constexpr,
    BN: tl.constexpr,
    SLICE: tl.constexpr,
    MIX: tl.constexpr,
    PRECISION: tl.constexpr,
    REVERSE: tl.constexpr,
):
    """What every chunk adds to the state, ``STATES [B, C, H, P, N]``.

    With x and B as ``X`` and ``M``, to the state after the chunk. If ``REVERSE``, with
    the gradient of the output and C, to the gradient of the state before the chunk.
    """
    i_h, i_c, i_b = place(H, NC)
    blocks: tl.constexpr = (N + BN - 1) // BN
    p = (tl.program_id(1) // blocks) * BP + tl.arange(0, BP)
    n = (tl.program_id(1) % blocks) * BN + tl.arange(0, BN)
    item = (i_b * NC + i_c) * H + i_h
    sums = SUMS + item * Q * 2
    state = tl.zeros([BP, BN], dtype=tl.float32)
    for first in range(0, Q, SLICE):
        i = first + tl.arange(0, SLICE)
        t = i_c * Q + i
        if REVERSE:
            weight = decay_from_start(sums, i)
        else:
            weight = load_steps(DT + i_b * dt_b + i_h * dt_h, dt_l, t, L)
            weight *= decay_to_end(sums, i, Q)
        x = load_tile(X + i_b * x_b + i_h * x_h, x_l, t, L, p, P).to(tl.float32)
        m = load_tile(M + i_b * m_b + (i_h // R) * m_h, m_l, t, L, n, N)
        state = product(tl.trans(x * weight[:, None]), m, state, MIX, PRECISION)
    inside = (p < P)[:, None] & (n < N)[None, :]
    to = STATES + item * P * N + p[:, None] * N + n[None, :]
    tl.store(to, state, mask=inside)


@triton.jit(do_not_specialize=('NC', 'H'))
def ssd_carry(
    SUMS,
    STATES,
    START,
    END,
    NC,
    H,
    SIZE: tl.constexpr,
    Q: tl.constexpr,
    BLOCK: tl.constexpr,
    AHEAD: tl.constexpr,
    REVERSE: tl.constexpr,
    HAS_START: tl.constexpr,
):
    """Replace what every chunk adds by the state before it.

    If ``REVERSE``, what it adds to the gradient by the gradient of the state after it.
    ``START`` and ``END [B, H, P, N]`` are the states at the two ends.
    """
    i_h = tl.program_id(0) % H
    i_b = (tl.program_id(0) // H).to(tl.int64)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = i < SIZE
    end = (i_b * H + i_h) * SIZE + i
    state = tl.zeros([BLOCK], dtype=tl.float32)
    if HAS_START:
        state = tl.load(START + end, mask=inside, other=0.0).to(tl.float32)
    for first in range(0, NC, AHEAD):
        # All loads first, so that they do not wait for each other.
        added = ()
        decays = ()
        for j in tl.static_range(AHEAD):
            c = tl.minimum(first + j, NC - 1)
            if REVERSE:
                c = NC - 1 - c
            item = (i_b * NC + c) * H + i_h
            added = added + (tl.load(STATES + item * SIZE + i, mask=inside, other=0.0),)
            whole, rest = load_sums(SUMS + item * Q * 2, Q - 1)
            decays = decays + (tl.exp2(whole + rest),)
        for j in tl.static_range(AHEAD):
            live = first + j < NC
            c = first + j
            if REVERSE:
                c = NC - 1 - c
            to = STATES + ((i_b * NC + c) * H + i_h) * SIZE + i
            tl.store(to, state, mask=inside & live)
            state = tl.where(live, state * decays[j] + added[j], state)
    tl.store(END + end, state, mask=inside)
