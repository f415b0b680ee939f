"""Triton kernels of the gradients of ``bi_wkv``.

The gradient of a sum of tokens is again such a sum: of the gradients of the outputs, in
the opposite direction, where the output of a step weighs ``e^{-scale + steps * w}``.
These sums are made in the same way as those of the tokens, by pieces.
"""

import triton
import triton.language as tl

from .triton_sums import (
    add,
    advance,
    choose,
    empty,
    exp,
    futures_of,
    load_keys,
    load_rows,
    load_sum,
    place,
    read_out,
    store_sum,
    with_token,
)


@triton.jit(do_not_specialize=('C', 'T', 'NS'))
def wkv_gradient_totals(
    W,
    U,
    K,
    V,
    GRAD,
    SUMS,
    GRAD_SUMS,
    k_b,
    k_t,
    v_b,
    v_t,
    g_b,
    g_s,
    g_t,
    C,
    T,
    NS,
    BC: tl.constexpr,
    PIECE: tl.constexpr,
):
    """The sums of the output gradients of one piece.

    ``GRAD_SUMS [B, 2, NS, 4, C]`` gets those seen from the step after the piece, which
    is in the future of the outputs, and those seen from the step before it.
    """
    c, i_s, i_b = place(C, NS, BC)
    inside = c < C
    start = i_s * PIECE
    w = tl.load(W + c, mask=inside, other=0.0)
    u = tl.load(U + c, mask=inside, other=0.0)
    past = load_sum(SUMS, i_b * 2 * NS + i_s, C, c, inside)
    after = load_sum(SUMS, (i_b * 2 + 1) * NS + i_s, C, c, inside)
    ks = load_keys(K + i_b * k_b, k_t, start, T, c, inside, PIECE)
    vs = load_rows(V + i_b * v_b, v_t, start, T, c, inside, PIECE)
    base = GRAD + i_b * g_b
    of_past = load_rows(base, g_t, start, T, c, inside, PIECE)
    of_future = load_rows(base + g_s, g_t, start, T, c, inside, PIECE)
    scales, steps, xs, ys = futures_of(ks, vs, after, start, T, w, PIECE)
    earlier = empty(BC)
    later = empty(BC)
    for j in tl.static_range(PIECE):
        live = start + j < T
        future = scales[j], steps[j], xs[j], ys[j]
        scale, step, inverse, _, before, behind = read_out(
            past, future, w, u, ks[j], vs[j]
        )
        d_past = of_past[j] * inverse
        d_future = of_future[j] * inverse
        d_sum = -(d_past * before + d_future * behind)
        seen = add(advance(earlier, 1.0), (-scale, -step, d_future, d_sum), w)
        earlier = choose(live, seen, earlier)
        seen = add(later, (-scale, j - step, d_past, d_sum), w)
        later = choose(live, seen, later)
        past = with_token(past, ks[j], vs[j], w)
    store_sum(GRAD_SUMS, i_b * 2 * NS + i_s, C, c, inside, earlier)
    store_sum(GRAD_SUMS, (i_b * 2 + 1) * NS + i_s, C, c, inside, later)


@triton.jit
def decay_gradient(tokens, outputs, w):
    """Part of the gradient of w where sums meet between two neighbouring steps."""
    exponent = tokens[0] + outputs[0] - (tokens[1] + outputs[1] + 1.0) * w
    return -exp(exponent) * (tokens[2] * outputs[2] + tokens[3] * outputs[3])


@triton.jit(do_not_specialize=('C', 'T', 'NS'))
def wkv_gradients(
    W,
    U,
    K,
    V,
    GRAD,
    SUMS,
    GRAD_SUMS,
    DW,
    DU,
    DK,
    DV,
    k_b,
    k_t,
    v_b,
    v_t,
    g_b,
    g_s,
    g_t,
    C,
    T,
    NS,
    BC: tl.constexpr,
    PIECE: tl.constexpr,
):
    """Gradients of one piece: ``DK`` and ``DV`` are ``[B, T, C]``, ``DW`` and ``DU``
    are ``[B, NS, C]``."""
    c, i_s, i_b = place(C, NS, BC)
    inside = c < C
    start = i_s * PIECE
    w = tl.load(W + c, mask=inside, other=0.0)
    u = tl.load(U + c, mask=inside, other=0.0)
    past = load_sum(SUMS, i_b * 2 * NS + i_s, C, c, inside)
    after = load_sum(SUMS, (i_b * 2 + 1) * NS + i_s, C, c, inside)
    earlier = load_sum(GRAD_SUMS, i_b * 2 * NS + i_s, C, c, inside)
    later = load_sum(GRAD_SUMS, (i_b * 2 + 1) * NS + i_s, C, c, inside)
    ks = load_keys(K + i_b * k_b, k_t, start, T, c, inside, PIECE)
    vs = load_rows(V + i_b * v_b, v_t, start, T, c, inside, PIECE)
    base = GRAD + i_b * g_b
    of_past = load_rows(base, g_t, start, T, c, inside, PIECE)
    of_future = load_rows(base + g_s, g_t, start, T, c, inside, PIECE)
    scales, steps, xs, ys = futures_of(ks, vs, after, start, T, w, PIECE)
    dw = tl.zeros([BC], dtype=tl.float32)
    du = tl.zeros([BC], dtype=tl.float32)
    # What the walk in the other direction needs of every step.
    pasts = ()
    seen_from = ()
    parts = ()
    for j in tl.static_range(PIECE):
        live = start + j < T
        future = scales[j], steps[j], xs[j], ys[j]
        scale, step, inverse, share, before, behind = read_out(
            past, future, w, u, ks[j], vs[j]
        )
        d_past = of_past[j] * inverse
        d_future = of_future[j] * inverse
        d_sum = -(d_past * before + d_future * behind)
        own = of_past[j] * (vs[j] - before) - of_future[j] * behind
        own *= share
        du += tl.where(live, own, 0.0)
        weight = exp((ks[j] + earlier[0]) - earlier[1] * w)
        dk = own + weight * (earlier[2] * vs[j] + earlier[3])
        dv = share * of_past[j] + weight * earlier[2]
        dw += tl.where(live, decay_gradient(future, earlier, w), 0.0)
        pasts = pasts + past
        seen_from = seen_from + (-scale, -step, d_past, d_sum)
        parts = parts + (dk, dv)
        past = with_token(past, ks[j], vs[j], w)
        earlier = add(advance(earlier, 1.0), (-scale, -step, d_future, d_sum), w)
    dk_base = DK + i_b * T * C + c
    dv_base = DV + i_b * T * C + c
    for j in tl.static_range(PIECE - 1, -1, -1):
        t = start + j
        live = t < T
        weight = exp((ks[j] + later[0]) - later[1] * w)
        dk = parts[2 * j] + weight * (later[2] * vs[j] + later[3])
        dv = parts[2 * j + 1] + weight * later[2]
        before = pasts[4 * j], pasts[4 * j + 1], pasts[4 * j + 2], pasts[4 * j + 3]
        dw += tl.where(live, decay_gradient(before, later, w), 0.0)
        tl.store(dk_base + t * C, dk.to(DK.dtype.element_ty), mask=inside & live)
        tl.store(dv_base + t * C, dv.to(DV.dtype.element_ty), mask=inside & live)
        output = (
            seen_from[4 * j],
            seen_from[4 * j + 1],
            seen_from[4 * j + 2],
            seen_from[4 * j + 3],
        )
        later = choose(live, add(advance(later, 1.0), output, w), later)
    row = (i_b * NS + i_s) * C + c
    tl.store(DW + row, dw, mask=inside)
    tl.store(DU + row, du, mask=inside)
