"""Triton kernel of ``bi_wkv6``: the output, or the gradient of the values.

In one direction, with a state S of key rows i and value columns j,

    y_t[j] = sum_i r_t[i] S_{t-1}[i, j],
    S_t[i, j] = a_t[i] S_{t-1}[i, j] + k_t[i] v_t[j].

Columns are independent of each other. A lane owns one, with its keys in registers, so
that lanes never exchange data. The gradient of v has the same form, backwards: with the
gradient of S for S, k for r, r for k and the gradient of y for v.
"""

import triton
import triton.language as tl

# Alignment of these must stay unknown, or a state would be divided among lanes.
HIDDEN = ('X', 'OUT')


@triton.jit
def place(C, T, D: tl.constexpr, BC: tl.constexpr):
    """The work item of a program; the directions vary fastest.

    Returns:
        Direction, block of 32 channels of the head, first channel of the head, batch
        entry.
    """
    pid = tl.program_id(0)
    i_s = pid % 2
    pid = pid // 2
    blocks: tl.constexpr = (D + BC - 1) // BC
    i_c = pid % blocks
    pid = pid // blocks
    heads = C // D
    return i_s, i_c, (pid % heads) * D, (pid // heads).to(tl.int64)


@triton.jit
def load_group(base, first, D: tl.constexpr, COUNT: tl.constexpr):
    """Channels ``first ... first + COUNT`` of a head, in float32."""
    i = first + tl.arange(0, COUNT)
    if D % COUNT == 0:
        return tl.load(base + i).to(tl.float32)
    else:
        return tl.load(base + i, mask=i < D, other=0.0).to(tl.float32)


@triton.jit(
    do_not_specialize=('C', 'T'),
    do_not_specialize_on_alignment=HIDDEN,
)
def wkv6_walk(
    Q,
    P,
    A,
    X,
    BONUS,
    OUT,
    q_b,
    q_t,
    p_b,
    p_t,
    a_b,
    a_t,
    x_b,
    x_s,
    x_t,
    C,
    T,
    D: tl.constexpr,
    NP: tl.constexpr,
    NR: tl.constexpr,
    BC: tl.constexpr,
    BACKWARDS: tl.constexpr,
):
    """Walk one direction of one head for 32 columns, or the other way round.

    At every token ``OUT [B, 2, T, C]`` gets ``q^T S``, then S becomes ``a S + p x^T``.
    Direction 0 adds ``q^T diag(bonus) p x^T``, for the token itself.
    """
    i_s, i_c, head, i_b = place(C, T, D, BC)
    column = i_c * BC + tl.arange(0, BC)
    inside = column < D
    q_base = Q + i_b * q_b + head
    p_base = P + i_b * p_b + head
    a_base = A + i_b * a_b + head
    x_base = X + i_b * x_b + i_s * x_s + head
    out_base = OUT + (i_b * 2 + i_s) * T * C + head
    every = tl.arange(0, NP)
    bonus = tl.load(BONUS + head + every, mask=every < D, other=0.0)
    state = ()
    for _ in tl.static_range(NP // NR):
        state = state + (tl.zeros([NR, BC], dtype=tl.float32),)
    for i in range(0, T):
        if BACKWARDS:
            t = tl.where(i_s == 0, T - 1 - i, i)
        else:
            t = tl.where(i_s == 0, i, T - 1 - i)
        x = tl.load(x_base + t * x_t + column, mask=inside, other=0.0).to(tl.float32)
        q_all = tl.load(q_base + t * q_t + every, mask=every < D, other=0.0)
        p_all = tl.load(p_base + t * p_t + every, mask=every < D, other=0.0)
        own = tl.sum(q_all.to(tl.float32) * bonus * p_all.to(tl.float32), axis=0)
        y = tl.where(i_s == 0, own, 0.0) * x
        moved = ()
        for g in tl.static_range(NP // NR):
            q = load_group(q_base + t * q_t, g * NR, D, NR)
            p = load_group(p_base + t * p_t, g * NR, D, NR)
            a = load_group(a_base + t * a_t, g * NR, D, NR)
            y += tl.sum(state[g] * q[:, None], axis=0)
            moved = moved + (state[g] * a[:, None] + p[:, None] * x[None, :],)
        state = moved
        tl.store(out_base + t * C + column, y, mask=inside)
