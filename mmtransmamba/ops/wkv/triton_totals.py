"""Triton kernels that make the pieces of a sequence independent, for ``bi_wkv``.

A sequence is divided into pieces of a few tokens. First every piece is summed by
itself, for either direction. Then these totals are carried along the sequence, after
which every piece knows the sum of what is before and what is after it. A long sequence
has so many pieces that groups of them are carried first.
"""

import triton
import triton.language as tl

from .triton_sums import (
    add,
    advance,
    choose,
    empty,
    load_keys,
    load_rows,
    load_sum,
    place,
    store_sum,
    with_token,
)


@triton.jit(do_not_specialize=('C', 'T', 'NS'))
def wkv_totals(
    W,
    K,
    V,
    SUMS,
    k_b,
    k_t,
    v_b,
    v_t,
    C,
    T,
    NS,
    BC: tl.constexpr,
    PIECE: tl.constexpr,
):
    """The sums of one piece, seen from the step after it and from that before it.

    ``SUMS`` is ``[B, 2, NS, 4, C]``.
    """
    c, i_s, i_b = place(C, NS, BC)
    inside = c < C
    start = i_s * PIECE
    w = tl.load(W + c, mask=inside, other=0.0)
    ks = load_keys(K + i_b * k_b, k_t, start, T, c, inside, PIECE)
    vs = load_rows(V + i_b * v_b, v_t, start, T, c, inside, PIECE)
    past = empty(BC)
    for j in tl.static_range(PIECE):
        past = choose(start + j < T, with_token(past, ks[j], vs[j], w), past)
    future = empty(BC)
    for j in tl.static_range(PIECE - 1, -1, -1):
        future = choose(start + j < T, with_token(future, ks[j], vs[j], w), future)
    store_sum(SUMS, i_b * 2 * NS + i_s, C, c, inside, past)
    store_sum(SUMS, (i_b * 2 + 1) * NS + i_s, C, c, inside, future)


@triton.jit(do_not_specialize=('C', 'T', 'NS', 'NG', 'length', 'group'))
def wkv_carry(
    W,
    SUMS,
    TOTALS,
    C,
    T,
    NS,
    NG,
    length,
    group,
    BC: tl.constexpr,
    GROUPED: tl.constexpr,
):
    """Replace the sum of every piece by that of the pieces before it, or after it.

    A program walks one group of pieces of ``length`` tokens along one direction; what
    is outside the group counts as empty. If ``GROUPED``, the total of the group goes to
    ``TOTALS [B, 2, NG, 4, C]``.
    """
    c, i_g, way = place(C, NG, BC)
    inside = c < C
    backwards = way % 2 == 1
    first = i_g * group
    last = tl.minimum(first + group, NS) - 1
    w = tl.load(W + c, mask=inside, other=0.0)
    carried = empty(BC)
    ahead = load_sum(SUMS, way * NS + tl.where(backwards, last, first), C, c, inside)
    for i in range(0, last - first + 1):
        s = tl.where(backwards, last - i, first + i)
        local = ahead
        # The sum of the next piece is loaded while this one is added.
        then = tl.where(backwards, tl.maximum(s - 1, first), tl.minimum(s + 1, last))
        ahead = load_sum(SUMS, way * NS + then, C, c, inside)
        store_sum(SUMS, way * NS + s, C, c, inside, carried)
        tokens = tl.minimum(length, T - s * length).to(tl.float32)
        carried = add(advance(carried, tokens), local, w)
    if GROUPED:
        store_sum(TOTALS, way * NG + i_g, C, c, inside, carried)


@triton.jit(do_not_specialize=('C', 'T', 'NS', 'NG', 'length', 'group'))
def wkv_spread(
    W,
    SUMS,
    TOTALS,
    C,
    T,
    NS,
    NG,
    length,
    group,
    BC: tl.constexpr,
):
    """Add to the sum of every piece what is outside its group, from ``TOTALS``."""
    c, s, way = place(C, NS, BC)
    inside = c < C
    i_g = s // group
    w = tl.load(W + c, mask=inside, other=0.0)
    # Tokens between the piece and the edge of its group that the walk started from.
    if way % 2 == 1:
        end = tl.minimum((i_g + 1) * group * length, T)
        distance = end - tl.minimum((s + 1) * length, T)
    else:
        distance = (s - i_g * group) * length
    outer = load_sum(TOTALS, way * NG + i_g, C, c, inside)
    outer = advance(outer, distance.to(tl.float32))
    local = load_sum(SUMS, way * NS + s, C, c, inside)
    # At the edge the sum within the group is empty.
    both = choose(distance == 0, outer, add(outer, local, w))
    store_sum(SUMS, way * NS + s, C, c, inside, both)
