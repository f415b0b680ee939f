"""Triton kernel of the selective scan's backward pass.

One warp processes 32 channels and walks its segment from the last chunk to the first.
In a chunk it first replays the states from the stored one, and stores that of every
``T`` steps. Then it takes ``T`` steps at a time, forwards and backwards, one state
after the other, with the values of a step in one register per lane.

Only the gradients of B and C are sums over channels. ``T`` of them are reduced at once
by a butterfly that halves their number in every round: four operations per value,
where a plain sum over 32 lanes takes ten. There are no atomic additions: contributions
of several programs are summed afterwards, always in the same order.
"""

import triton
import triton.language as tl

from .triton_math import load_tokens, place, sigmoid, step_size


@triton.jit
def halve(rows, lane, HALF: tl.constexpr):
    """Reduce ``2 * HALF`` rows to ``HALF``: each lane keeps one half, by its bit."""
    kept = ()
    upper = (lane & HALF) != 0
    for j in tl.static_range(HALF):
        keep = tl.where(upper, rows[j + HALF], rows[j])
        give = tl.where(upper, rows[j], rows[j + HALF])
        kept = kept + (keep + tl.gather(give, lane ^ HALF, 0),)
    return kept


@triton.jit
def sum_lanes(rows, lane):
    """Sum each of eight rows over 32 lanes; lane ``l`` has the sum of row ``l % 8``."""
    rows = halve(rows, lane, 4)
    rows = halve(rows, lane, 2)
    rows = halve(rows, lane, 1)
    x = rows[0]
    x += tl.gather(x, lane ^ 8, 0)
    x += tl.gather(x, lane ^ 16, 0)
    return x


@triton.jit(
    do_not_specialize=('D', 'L', 'WIDTH', 'G', 'S', 'NC', 'segment'),
    do_not_specialize_on_alignment=(
        'A',
        'SKIP',
        'BIAS',
        'STATES',
        'GRAD_STATE',
        'SCRATCH',
    ),
)
def scan_backward(
    U,
    DELTA,
    A,
    B,
    C,
    SKIP,
    BIAS,
    Z,
    ORDER,
    STATES,
    GRAD_Y,
    GRAD_STATE,
    SCRATCH,
    DU,
    DDELTA,
    DA,
    DB,
    DC,
    DSKIP,
    DBIAS,
    DZ,
    u_b,
    u_k,
    u_l,
    delta_b,
    delta_k,
    delta_l,
    z_b,
    z_l,
    y_b,
    y_k,
    y_l,
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
    KB: tl.constexpr,
    KC: tl.constexpr,
    T: tl.constexpr,
    CK: tl.constexpr,
    ORDERED: tl.constexpr,
    PERMUTED: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    HAS_SKIP: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_Z: tl.constexpr,
    HAS_GRAD_STATE: tl.constexpr,
):
    """Gradients of one segment of 32 channels, along one direction.

    ``STATES`` are those stored by the forward pass, ``GRAD_STATE [B, K, S, N, D]`` is
    the gradient of the state after each segment. ``SCRATCH`` has for every program
    ``CK / T`` states, then the running gradients of the state and of A. ``DU`` and
    ``DDELTA`` are ``[B, K * J, L, D]``, ``DA`` is ``[B, S, K, N, D]``, ``DB`` and
    ``DC`` are ``[blocks, B, K, G, N, L]``, ``DSKIP`` and ``DBIAS`` are
    ``[B, S, K * J, D]``.
    """
    BD: tl.constexpr = 32
    i_k, i_j, i_c, i_g, first, i_s, i_b = place(G, WIDTH, S, K, J, BD)
    lane = tl.arange(0, BD)
    inside = first + lane < WIDTH
    d = i_g * WIDTH + first + lane
    states = tl.arange(0, NP)
    n = i_j * NP + states
    count = tl.minimum(N - i_j * NP, NP)
    known = (n < N)[:, None] & inside[None, :]
    batch = i_b.to(tl.int64)
    way = batch * K + i_k
    slices = way * J + i_j
    start = i_s * segment
    stop = tl.minimum(start + segment, L)

    bias = tl.zeros([BD], dtype=tl.float32)
    if HAS_BIAS:
        bias = tl.load(BIAS + i_k * bias_k + d, mask=inside, other=0.0)
    skip = tl.zeros([BD], dtype=tl.float32)
    if HAS_SKIP:
        skip = tl.load(SKIP + i_k * skip_k + d, mask=inside & (i_j == 0), other=0.0)

    path = ORDER + i_k * L
    a_base = A + i_k * a_k + i_j * NP * D
    u_base = U + batch * u_b + i_k * u_k
    delta_base = DELTA + batch * delta_b + i_k * delta_k
    y_base = GRAD_Y + batch * y_b + i_k * y_k
    z_base = Z + batch * z_b
    b_base = B + ((batch * KB + i_k % KB) * G + i_g) * L * N + i_j * NP
    c_base = C + ((batch * KC + i_k % KC) * G + i_g) * L * N + i_j * NP
    du_base = DU + slices * L * D
    ddelta_base = DDELTA + slices * L * D
    blocks = tl.cdiv(WIDTH, BD)
    walks = tl.num_programs(0) // (J * S * G * blocks)
    matrix = ((i_c % blocks) * walks + way) * G + i_g
    db_base = DB + (matrix * N + i_j * NP) * L
    dc_base = DC + (matrix * N + i_j * NP) * L

    tiles: tl.constexpr = CK // T
    scratch = SCRATCH + tl.program_id(0).to(tl.int64) * (tiles + 2) * NP * BD
    square = states[:, None] * BD + lane[None, :]
    grads = scratch + tiles * NP * BD
    rates = grads + NP * BD
    grad = tl.zeros([NP, BD], dtype=tl.float32)
    tl.store(rates + square, grad)
    if HAS_GRAD_STATE:
        cell = (way * S + i_s) * N * D + n[:, None] * D + d[None, :]
        grad = tl.load(GRAD_STATE + cell, mask=known, other=0.0)
    tl.store(grads + square, grad)
    dskip = tl.zeros([BD], dtype=tl.float32)
    dbias = tl.zeros([BD], dtype=tl.float32)
    row = lane & (T - 1)

    chunks = tl.cdiv(stop - start, CK)
    for i in range(0, chunks):
        t_chunk = start + (chunks - 1 - i) * CK
        end = tl.minimum(t_chunk + CK, stop)
        count_tiles = tl.cdiv(end - t_chunk, T)

        # Replay: the state before every tile.
        rate = tl.load(
            A + i_k * a_k + n[:, None] * D + d[None, :], mask=known, other=0.0
        )
        cell = (way * NC + t_chunk // CK - 1) * N * D + n[:, None] * D + d[None, :]
        state = tl.load(STATES + cell, mask=known & (t_chunk > 0), other=0.0)
        # Four steps at a time: with eight, prefetching takes too many registers.
        for four in range(0, count_tiles * (T // 4)):
            if four % (T // 4) == 0:
                tl.store(scratch + four // (T // 4) * NP * BD + square, state)
            for j in tl.static_range(4):
                t = t_chunk + four * 4 + j
                live = (t < end) & inside
                step = tl.minimum(t, L - 1)
                token = step
                if ORDERED:
                    token = tl.load(path + step).to(tl.int32)
                at = step
                if PERMUTED:
                    at = token
                raw = tl.load(delta_base + at * delta_l + d, mask=live, other=0.0)
                delta = step_size(raw.to(tl.float32), bias, live, SOFTPLUS)
                u = tl.load(u_base + token * u_l + d, mask=live, other=0.0)
                u = u.to(tl.float32)
                if N % NP == 0:
                    b = tl.load(b_base + at * N + states)
                else:
                    b = tl.load(b_base + at * N + states, mask=n < N, other=0.0)
                decay = tl.exp2(delta[None, :] * rate)
                state = decay * state + (delta * u)[None, :] * b[:, None]
                if HAS_Z:
                    c = tl.load(c_base + at * N + states, mask=n < N, other=0.0)
                    y = tl.sum(state * c[:, None], axis=0) + skip * u
                    gate = tl.load(z_base + token * z_l + d, mask=live, other=0.0)
                    gate = gate.to(tl.float32)
                    s = sigmoid(gate)
                    dy = tl.load(y_base + token * y_l + d, mask=live, other=0.0)
                    dz = dy.to(tl.float32) * y * s * (1.0 + gate * (1.0 - s))
                    dz_at = DZ + (batch * L + token) * D + d
                    tl.store(dz_at, dz.to(DZ.dtype.element_ty), mask=live)
        tl.debug_barrier()

        for ti in range(0, count_tiles):
            tile = count_tiles - 1 - ti
            t0 = t_chunk + tile * T
            tokens = load_tokens(path, t0, L, T, ORDERED)
            places = tokens
            if not PERMUTED:
                places = load_tokens(path, t0, L, T, False)
            deltas = ()
            us = ()
            dys = ()
            by_input = ()
            by_rate = ()
            for j in tl.static_range(T):
                live = (t0 + j < end) & inside
                raw = tl.load(
                    delta_base + places[j] * delta_l + d, mask=live, other=0.0
                )
                delta = step_size(raw.to(tl.float32), bias, live, SOFTPLUS)
                u = tl.load(u_base + tokens[j] * u_l + d, mask=live, other=0.0)
                dy = tl.load(y_base + tokens[j] * y_l + d, mask=live, other=0.0)
                dy = dy.to(tl.float32)
                if HAS_Z:
                    gate = tl.load(z_base + tokens[j] * z_l + d, mask=live, other=0.0)
                    gate = gate.to(tl.float32)
                    dy *= gate * sigmoid(gate)
                deltas = deltas + (delta,)
                us = us + (u.to(tl.float32),)
                dys = dys + (dy,)
                by_input = by_input + (tl.zeros([BD], dtype=tl.float32),)
                by_rate = by_rate + (tl.zeros([BD], dtype=tl.float32),)
            mine = tl.minimum(t0 + row, L - 1)
            if PERMUTED:
                mine = tl.load(path + mine).to(tl.int32)
            writes = (lane < T) & (t0 + row < end)

            for m in range(0, count):
                a2 = tl.load(a_base + m * D + d, mask=inside, other=0.0)
                h = tl.load(scratch + (tile * NP + m) * BD + lane)
                g = tl.load(grads + m * BD + lane)
                da = tl.load(rates + m * BD + lane)
                decays = ()
                olds = ()
                for_c = ()
                for j in tl.static_range(T):
                    b = tl.load(b_base + places[j] * N + m)
                    decay = tl.exp2(deltas[j] * a2)
                    old = decay * h
                    h = old + deltas[j] * us[j] * b
                    decays = decays + (decay,)
                    olds = olds + (old,)
                    for_c = for_c + (dys[j] * h,)
                for_b = ()
                inputs = ()
                steps = ()
                for jj in tl.static_range(T):
                    b = tl.load(b_base + places[T - 1 - jj] * N + m)
                    c = tl.load(c_base + places[T - 1 - jj] * N + m)
                    g += dys[T - 1 - jj] * c
                    for_b = (g * (deltas[T - 1 - jj] * us[T - 1 - jj]),) + for_b
                    through = g * olds[T - 1 - jj]
                    inputs = (by_input[T - 1 - jj] + g * b,) + inputs
                    steps = (by_rate[T - 1 - jj] + through * a2,) + steps
                    da += through * deltas[T - 1 - jj]
                    g *= decays[T - 1 - jj]
                by_input = inputs
                by_rate = steps
                tl.store(grads + m * BD + lane, g)
                tl.store(rates + m * BD + lane, da)
                tl.store(db_base + m * L + mine, sum_lanes(for_b, lane), mask=writes)
                tl.store(dc_base + m * L + mine, sum_lanes(for_c, lane), mask=writes)

            for j in tl.static_range(T):
                live = (t0 + j < end) & inside
                du = by_input[j] * deltas[j] + dys[j] * skip
                at = du_base + tokens[j] * D + d
                tl.store(at, du.to(DU.dtype.element_ty), mask=live)
                # The rates carry a factor log2(e), for the base-2 exponential.
                ddelta = by_input[j] * us[j] + by_rate[j] * 0.6931471805599453
                if SOFTPLUS:
                    raw = tl.load(
                        delta_base + places[j] * delta_l + d, mask=live, other=0.0
                    )
                    ddelta *= sigmoid(raw.to(tl.float32) + bias)
                at = ddelta_base + places[j] * D + d
                tl.store(at, ddelta.to(DDELTA.dtype.element_ty), mask=live)
                dskip += dys[j] * us[j]
                dbias += tl.where(live, ddelta, 0.0)
        tl.debug_barrier()

    part = (batch * S + i_s) * K + i_k
    da = tl.load(rates + square)
    tl.store(DA + part * N * D + n[:, None] * D + d[None, :], da, mask=known)
    at = (part * J + i_j) * D + d
    # Every group of states has seen the same outputs.
    tl.store(DSKIP + at, tl.where(i_j == 0, dskip, 0.0), mask=inside)
    tl.store(DBIAS + at, dbias, mask=inside)
