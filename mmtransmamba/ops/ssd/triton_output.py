"""Triton kernel of SSD's output.

Shape suffixes: B batch, L steps, C chunks, H heads, P channels of a head, G groups,
N states, Q steps of a chunk.
"""

import triton
import triton.language as tl

from .triton_math import (
    decay_between,
    decay_from_start,
    load_steps,
    load_tile,
    place,
    product,
)


@triton.jit(do_not_specialize=('L', 'NC'))
def ssd_output(
    X,
    DT,
    C,
    SKIP,
    SUMS,
    SCORES,
    STATES,
    Y,
    x_b,
    x_l,
    x_h,
    dt_b,
    dt_l,
    dt_h,
    c_b,
    c_l,
    c_h,
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
    """``Y [B, L, H, P]``: the state before the chunk, read, and attention within it.

    ``SUMS``, ``SCORES`` and ``STATES`` are those of ``triton_states``.
    """
    i_h, i_c, i_b = place(H, NC)
    p = tl.program_id(1) * BP + tl.arange(0, BP)
    i = tl.arange(0, Q)
    t = i_c * Q + i
    item = (i_b * NC + i_c) * H + i_h
    sums = SUMS + item * Q * 2
    y = tl.zeros([Q, BP], dtype=tl.float32)
    for first in range(0, N, SLICE):
        n = first + tl.arange(0, SLICE)
        c = load_tile(C + i_b * c_b + (i_h // R) * c_h, c_l, t, L, n, N)
        state = load_tile(STATES + item * P * N, N, p, P, n, N)
        y = product(c, tl.trans(state), y, MIX, PRECISION)
    y *= decay_from_start(sums, i)[:, None]
    x_base = X + i_b * x_b + i_h * x_h
    scores = SCORES + ((i_b * NC + i_c) * (H // R) + i_h // R) * Q * Q
    for first in range(0, Q, SLICE):
        j = first + tl.arange(0, SLICE)
        s = i_c * Q + j
        attention = tl.load(scores + i[:, None] * Q + j[None, :])
        attention *= decay_between(sums, i[:, None], j[None, :])
        x = load_tile(x_base, x_l, s, L, p, P).to(tl.float32)
        drive = x * load_steps(DT + i_b * dt_b + i_h * dt_h, dt_l, s, L)[:, None]
        y = product(attention, drive, y, MIX, PRECISION)
    if HAS_SKIP:
        x = load_tile(x_base, x_l, t, L, p, P).to(tl.float32)
        y += tl.load(SKIP + i_h) * x
    to = Y + (i_b * L * H + i_h) * P + t[:, None] * (H * P) + p[None, :]
    inside = (t < L)[:, None] & (p < P)[None, :]
    tl.store(to, y.to(Y.dtype.element_ty), mask=inside)
