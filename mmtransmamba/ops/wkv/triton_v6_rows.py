"""Triton kernel of the gradients of ``bi_wkv6`` that belong to keys.

With the gradient G_t of the state after token t, where ``G_{t-1} = a_t G_t + r_t
dy_t^T`` in rows,

    dr_t[i] = sum_j S_{t-1}[i, j] dy_t[j],
    dk_t[i] = sum_j G_t[i, j] v_t[j],
    da_t[i] = sum_j G_t[i, j] S_{t-1}[i, j].

Rows are independent of each other. A lane owns one, and walks its direction from the
end. The states that are needed there are computed again: from the start to every chunk,
from a chunk's start to every tile, and from a tile's start with a few columns at a
time, so that the states of its steps fit in registers. The decay's gradient is the
product of the two states itself: it can be had from r dr and k dk alone, but only as
a difference that cancels and that is divided by the decay.
"""

import triton
import triton.language as tl

from .triton_v6_walk import load_group, place

# Alignment of these must stay unknown, or a state would be divided among lanes.
HIDDEN = ('R', 'K', 'A', 'SCRATCH', 'DR', 'DK', 'DA', 'DU')


@triton.jit
def load_row(base, t, stride, row, live, absent):
    """One channel per lane, in float32; ``absent`` past the end of the walk."""
    return tl.load(base + t * stride + row, mask=live, other=absent).to(tl.float32)


@triton.jit
def load_state(at, NP: tl.constexpr, NR: tl.constexpr, BC: tl.constexpr):
    """A state of ``NP`` columns as tiles of ``NR``."""
    state = ()
    for g in tl.static_range(NP // NR):
        j = g * NR + tl.arange(0, NR)
        cell = at + j[:, None] * BC + tl.arange(0, BC)[None, :]
        state = state + (tl.load(cell),)
    return state


@triton.jit
def store_state(at, state, NP: tl.constexpr, NR: tl.constexpr, BC: tl.constexpr):
    """Counterpart of ``load_state``."""
    for g in tl.static_range(NP // NR):
        j = g * NR + tl.arange(0, NR)
        cell = at + j[:, None] * BC + tl.arange(0, BC)[None, :]
        tl.store(cell, state[g])


@triton.jit
def step(state, a, k, base, D: tl.constexpr, NP: tl.constexpr, NR: tl.constexpr):
    """The state one token later; ``base`` is where the token's values are."""
    moved = ()
    for g in tl.static_range(NP // NR):
        v = load_group(base, g * NR, D, NR)
        moved = moved + (state[g] * a[None, :] + v[:, None] * k[None, :],)
    return moved


@triton.jit(
    do_not_specialize=('C', 'T', 'NC'),
    do_not_specialize_on_alignment=HIDDEN,
)
def wkv6_rows(
    R,
    K,
    A,
    V,
    GRAD,
    BONUS,
    SCRATCH,
    DR,
    DK,
    DA,
    DU,
    r_b,
    r_t,
    k_b,
    k_t,
    a_b,
    a_t,
    v_b,
    v_t,
    g_b,
    g_s,
    g_t,
    C,
    T,
    NC,
    chunk,
    D: tl.constexpr,
    NP: tl.constexpr,
    NR: tl.constexpr,
    NV: tl.constexpr,
    BC: tl.constexpr,
    TILE: tl.constexpr,
):
    """Gradients of 32 rows of one head along one direction.

    ``DR``, ``DK`` and ``DA`` are ``[B, 2, T, C]``, ``DU [B, C]`` gets that of the
    bonus, from direction 0. ``SCRATCH`` has for every program the state at the start of
    ``NC`` chunks, then that of the tiles of a chunk, then G.
    """
    i_s, i_c, head, i_b = place(C, T, D, BC)
    row = i_c * BC + tl.arange(0, BC)
    inside = row < D
    r_base = R + i_b * r_b + head
    k_base = K + i_b * k_b + head
    a_base = A + i_b * a_b + head
    v_base = V + i_b * v_b + head
    g_base = GRAD + i_b * g_b + i_s * g_s + head
    out = (i_b * 2 + i_s) * T * C + head
    size: tl.constexpr = NP * BC
    tiles = chunk // TILE
    chunks_at = SCRATCH + tl.program_id(0).to(tl.int64) * (NC + tiles + 1) * size
    tiles_at = chunks_at + NC * size
    grads_at = tiles_at + tiles * size
    bonus = tl.load(BONUS + head + row, mask=inside, other=0.0)
    bonus = tl.where(i_s == 0, bonus, 0.0)

    state = ()
    for _ in tl.static_range(NP // NR):
        state = state + (tl.zeros([NR, BC], dtype=tl.float32),)
    store_state(grads_at, state, NP, NR, BC)
    for i in range(0, T):
        if i % chunk == 0:
            store_state(chunks_at + (i // chunk) * size, state, NP, NR, BC)
        t = tl.where(i_s == 0, i, T - 1 - i)
        a = load_row(a_base, t, a_t, row, inside, 1.0)
        k = load_row(k_base, t, k_t, row, inside, 0.0)
        state = step(state, a, k, v_base + t * v_t, D, NP, NR)

    du = tl.zeros([BC], dtype=tl.float32)
    for c in range(0, NC):
        start = (NC - 1 - c) * chunk
        stop = tl.minimum(start + chunk, T)
        state = load_state(chunks_at + (NC - 1 - c) * size, NP, NR, BC)
        for i in range(start, stop):
            if (i - start) % TILE == 0:
                store_state(tiles_at + ((i - start) // TILE) * size, state, NP, NR, BC)
            t = tl.where(i_s == 0, i, T - 1 - i)
            a = load_row(a_base, t, a_t, row, inside, 1.0)
            k = load_row(k_base, t, k_t, row, inside, 0.0)
            state = step(state, a, k, v_base + t * v_t, D, NP, NR)
        count = tl.cdiv(stop - start, TILE)
        for back in range(0, count):
            i_t = count - 1 - back
            first = start + i_t * TILE
            # Past the end the states stay as they are.
            ks = ()
            rs = ()
            decays = ()
            tokens = ()
            dks = ()
            drs = ()
            das = ()
            for n in tl.static_range(TILE):
                live = inside & (first + n < stop)
                i = tl.minimum(first + n, T - 1)
                t = tl.where(i_s == 0, i, T - 1 - i)
                k = load_row(k_base, t, k_t, row, live, 0.0)
                r = load_row(r_base, t, r_t, row, live, 0.0)
                # Value times gradient: what the token's own output adds.
                values = load_group(v_base + t * v_t, 0, D, NP)
                own = tl.sum(values * load_group(g_base + t * g_t, 0, D, NP), axis=0)
                tokens = tokens + (t,)
                ks = ks + (k,)
                rs = rs + (r,)
                decays = decays + (load_row(a_base, t, a_t, row, live, 1.0),)
                dks = dks + (bonus * r * own,)
                drs = drs + (bonus * k * own,)
                das = das + (tl.zeros([BC], dtype=tl.float32),)
                du += r * k * own
            for g in range(0, NP // NV):
                j = g * NV + tl.arange(0, NV)
                cell = j[:, None] * BC + tl.arange(0, BC)[None, :]
                at = tl.load(tiles_at + i_t * size + cell)
                grad = tl.load(grads_at + cell)
                states = ()
                for n in tl.static_range(TILE):
                    states = states + (at,)
                    v = load_group(v_base + tokens[n] * v_t, g * NV, D, NV)
                    at = at * decays[n][None, :] + v[:, None] * ks[n][None, :]
                more_dk = ()
                more_dr = ()
                more_da = ()
                for n in tl.static_range(TILE - 1, -1, -1):
                    v = load_group(v_base + tokens[n] * v_t, g * NV, D, NV)
                    dy = load_group(g_base + tokens[n] * g_t, g * NV, D, NV)
                    dk = dks[n] + tl.sum(grad * v[:, None], axis=0)
                    dr = drs[n] + tl.sum(states[n] * dy[:, None], axis=0)
                    da = das[n] + tl.sum(states[n] * grad, axis=0)
                    more_dk = (dk,) + more_dk
                    more_dr = (dr,) + more_dr
                    more_da = (da,) + more_da
                    grad = grad * decays[n][None, :] + dy[:, None] * rs[n][None, :]
                dks = more_dk
                drs = more_dr
                das = more_da
                tl.store(grads_at + cell, grad)
            for n in tl.static_range(TILE):
                live = inside & (first + n < stop)
                where = out + tokens[n] * C + row
                tl.store(DK + where, dks[n], mask=live)
                tl.store(DR + where, drs[n], mask=live)
                tl.store(DA + where, das[n], mask=live)
    tl.store(DU + i_b * C + head + row, du, mask=inside & (i_s == 0))
