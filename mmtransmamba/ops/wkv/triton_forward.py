"""Triton kernel of the outputs of ``bi_wkv``."""

import triton
import triton.language as tl

from .triton_sums import (
    futures_of,
    load_keys,
    load_rows,
    load_sum,
    place,
    read_out,
    with_token,
)


@triton.jit(do_not_specialize=('C', 'T', 'NS'))
def wkv_output(
    W,
    U,
    K,
    V,
    SUMS,
    Y,
    k_b,
    k_t,
    v_b,
    v_t,
    C,
    T,
    NS,
    BC: tl.constexpr,
    PIECE: tl.constexpr,
    SEPARATE: tl.constexpr,
):
    """Outputs of one piece: ``Y`` is ``[B, 2, T, C]`` if ``SEPARATE``, else
    ``[B, 1, T, C]``.

    ``SUMS [B, 2, NS, 4, C]`` has the sums before and after every piece.
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
    scales, steps, xs, ys = futures_of(ks, vs, after, start, T, w, PIECE)
    kind: tl.constexpr = Y.dtype.element_ty
    base = Y + i_b * (1 + SEPARATE) * T * C + c
    for j in tl.static_range(PIECE):
        t = start + j
        live = inside & (t < T)
        future = scales[j], steps[j], xs[j], ys[j]
        _, _, _, _, before, behind = read_out(past, future, w, u, ks[j], vs[j])
        if SEPARATE:
            tl.store(base + t * C, before.to(kind), mask=live)
            tl.store(base + (T + t) * C, behind.to(kind), mask=live)
        else:
            tl.store(base + t * C, (before + behind).to(kind), mask=live)
        past = with_token(past, ks[j], vs[j], w)
