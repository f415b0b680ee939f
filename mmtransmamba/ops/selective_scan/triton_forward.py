"""Triton kernels of the selective scan's forward pass.

A program processes a block of channels and keeps their states ``[NP, BD]`` in
registers. The states of one channel lie in one lane, so that the sum over them needs no
other lane, and lanes never exchange data. For this layout the compiler must not know
that ``A`` is aligned along the channels; otherwise it would divide the states among
warps.

``u``, ``delta`` and ``z`` have unit stride over the channels, ``A`` is
``[1|K, N, D]`` times log2(e), ``B`` and ``C`` are contiguous ``[B, 1|K, G, L, N]``.
"""

import triton
import triton.language as tl

from .triton_math import (
    load_rows,
    load_tokens,
    place,
    sigmoid,
    step_size,
)

# Arguments whose alignment the compiler must not use, and sizes that vary.
HIDDEN = ('A', 'SKIP', 'BIAS', 'STATES', 'LAST')
SIZES = ('D', 'L', 'WIDTH', 'G', 'S', 'NC', 'segment')


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=HIDDEN)
def scan_forward(
    U,
    DELTA,
    A,
    B,
    C,
    SKIP,
    BIAS,
    Z,
    ORDER,
    Y,
    STATES,
    LAST,
    u_b,
    u_k,
    u_l,
    delta_b,
    delta_k,
    delta_l,
    z_b,
    z_l,
    a_k,
    skip_k,
    bias_k,
    D,
    L,
    WIDTH,
    G,
    S,
    NC,
    segment,
    N: tl.constexpr,
    NP: tl.constexpr,
    J: tl.constexpr,
    K: tl.constexpr,
    KP: tl.constexpr,
    KB: tl.constexpr,
    KC: tl.constexpr,
    BD: tl.constexpr,
    UN: tl.constexpr,
    CK: tl.constexpr,
    ORDERED: tl.constexpr,
    PERMUTED: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    KEEP: tl.constexpr,
    SEGMENTED: tl.constexpr,
    HAS_SKIP: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_Z: tl.constexpr,
    WANT_LAST: tl.constexpr,
):
    """Scan one segment of one block of channels along ``KP`` directions.

    With ``KP = K`` the directions share delta and A, and every exponential serves
    all of them. Outputs are written to ``Y [B, K * J, L, D]``, at the tokens' places.
    """
    i_k, i_j, i_c, i_g, first, i_s, i_b = place(G, WIDTH, S, K // KP, J, BD)
    lane = first + tl.arange(0, BD)
    inside = lane < WIDTH
    d = i_g * WIDTH + lane
    n = i_j * NP + tl.arange(0, NP)
    known = (n < N)[:, None] & inside[None, :]
    batch = i_b.to(tl.int64)
    start = i_s * segment
    stop = tl.minimum(start + segment, L)

    rate = tl.load(A + i_k * a_k + n[:, None] * D + d[None, :], mask=known, other=0.0)
    skip = tl.zeros([BD], dtype=tl.float32)
    if HAS_SKIP:
        # The groups of states are summed: only one of them adds the skip.
        skip = tl.load(SKIP + i_k * skip_k + d, mask=inside & (i_j == 0), other=0.0)
    bias = tl.zeros([BD], dtype=tl.float32)
    if HAS_BIAS:
        bias = tl.load(BIAS + i_k * bias_k + d, mask=inside, other=0.0)

    delta_base = DELTA + batch * delta_b + i_k * delta_k
    z_base = Z + batch * z_b
    if KEEP:
        slot = start // CK - 1
    else:
        slot = i_s - 1
    states = ()
    for k in tl.static_range(KP):
        state = tl.zeros([NP, BD], dtype=tl.float32)
        if SEGMENTED:
            at = ((batch * K + i_k * KP + k) * NC + slot) * N * D
            cell = at + n[:, None] * D + d[None, :]
            state = tl.load(STATES + cell, mask=known & (i_s > 0), other=0.0)
        states = states + (state,)

    # The rows of the next group of steps are loaded while this group is computed.
    here = ()
    ahead = ()
    us = ()
    for k in tl.static_range(KP):
        path = ORDER + (i_k * KP + k) * L
        one = load_tokens(path, start, L, UN, ORDERED)
        base = U + batch * u_b + (i_k * KP + k) * u_k
        us = us + load_rows(base, u_l, one, d, inside, UN)
        here = here + one
        ahead = ahead + load_tokens(path, start + UN, L, UN, ORDERED)
    if PERMUTED:
        raws = load_rows(delta_base, delta_l, here, d, inside, UN)
    else:
        steps = load_tokens(ORDER, start, L, UN, False)
        raws = load_rows(delta_base, delta_l, steps, d, inside, UN)

    for t0 in range(start, stop, UN):
        if KEEP:
            if (t0 % CK == 0) & (t0 > start):
                for k in tl.static_range(KP):
                    at = ((batch * K + i_k * KP + k) * NC + t0 // CK - 1) * N * D
                    cell = at + n[:, None] * D + d[None, :]
                    tl.store(STATES + cell, states[k], mask=known)
        next_us = ()
        beyond = ()
        for k in tl.static_range(KP):
            base = U + batch * u_b + (i_k * KP + k) * u_k
            for j in tl.static_range(UN):
                row = tl.load(
                    base + ahead[k * UN + j] * u_l + d, mask=inside, other=0.0
                )
                next_us = next_us + (row.to(tl.float32),)
            path = ORDER + (i_k * KP + k) * L
            beyond = beyond + load_tokens(path, t0 + 2 * UN, L, UN, ORDERED)
        if PERMUTED:
            next_raws = load_rows(delta_base, delta_l, ahead, d, inside, UN)
        else:
            steps = load_tokens(ORDER, t0 + UN, L, UN, False)
            next_raws = load_rows(delta_base, delta_l, steps, d, inside, UN)

        for j in tl.static_range(UN):
            live = t0 + j < stop
            delta = step_size(raws[j], bias, live, SOFTPLUS)
            decay = tl.exp2(delta[None, :] * rate)
            moved = ()
            for k in tl.static_range(KP):
                token = here[k * UN + j]
                u = us[k * UN + j]
                if PERMUTED:
                    at = token
                else:
                    at = tl.minimum(t0 + j, L - 1)
                way = i_k * KP + k
                b_at = ((batch * KB + way % KB) * G + i_g) * L * N
                c_at = ((batch * KC + way % KC) * G + i_g) * L * N
                if N % NP == 0:
                    b = tl.load(B + b_at + at * N + n)
                    c = tl.load(C + c_at + at * N + n)
                else:
                    b = tl.load(B + b_at + at * N + n, mask=n < N, other=0.0)
                    c = tl.load(C + c_at + at * N + n, mask=n < N, other=0.0)
                state = decay * states[k] + (delta * u)[None, :] * b[:, None]
                y = tl.sum(state * c[:, None], axis=0)
                if HAS_SKIP:
                    y += skip * u
                if HAS_Z:
                    gate = tl.load(z_base + token * z_l + d, mask=inside, other=0.0)
                    gate = gate.to(tl.float32)
                    y *= gate * sigmoid(gate)
                row = ((batch * K + way) * J + i_j) * L * D
                tl.store(
                    Y + row + token * D + d,
                    y.to(Y.dtype.element_ty),
                    mask=inside & live,
                )
                moved = moved + (state,)
            states = moved
        here = ahead
        ahead = beyond
        us = next_us
        raws = next_raws

    if WANT_LAST:
        if stop == L:
            for k in tl.static_range(KP):
                at = (batch * K + i_k * KP + k) * N * D
                cell = at + n[:, None] * D + d[None, :]
                tl.store(LAST + cell, states[k], mask=known)
