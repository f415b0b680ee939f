"""Triton kernels that make the segments of a long sequence independent.

With few channels, most of a device is idle if one program walks the whole sequence. The
final state is linear in the initial state. So every segment is scanned from zero, its
final state is carried through all segments, and each is scanned again from its true
initial state. The gradient of the state does the same from the other end.
"""

import triton
import triton.language as tl

from .triton_math import place, sigmoid, step_size


@triton.jit(
    do_not_specialize=('D', 'L', 'WIDTH', 'G', 'S', 'segment'),
    do_not_specialize_on_alignment=('A', 'BIAS', 'LOCAL', 'TOTAL'),
)
def scan_segment(
    X,
    DELTA,
    A,
    M,
    BIAS,
    Z,
    ORDER,
    LOCAL,
    TOTAL,
    x_b,
    x_k,
    x_l,
    delta_b,
    delta_k,
    delta_l,
    z_b,
    z_l,
    a_k,
    bias_k,
    D,
    L,
    WIDTH,
    G,
    S,
    segment,
    N: tl.constexpr,
    NP: tl.constexpr,
    J: tl.constexpr,
    K: tl.constexpr,
    KM: tl.constexpr,
    BD: tl.constexpr,
    ORDERED: tl.constexpr,
    PERMUTED: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    REVERSE: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_Z: tl.constexpr,
):
    """The final state of a segment scanned from zero, and the sum of its step sizes.

    In the forward pass, ``X`` is ``u`` and ``M`` is ``B``. In reverse the states are
    gradients: ``X`` is that of the output, gated by ``Z``, and ``M`` is ``C``.
    ``LOCAL`` is ``[B, K, S, N, D]``, ``TOTAL`` is ``[B, K, S, D]``.
    """
    i_k, i_j, i_c, i_g, first, i_s, i_b = place(G, WIDTH, S, K, J, BD)
    lane = first + tl.arange(0, BD)
    inside = lane < WIDTH
    d = i_g * WIDTH + lane
    n = i_j * NP + tl.arange(0, NP)
    known = (n < N)[:, None] & inside[None, :]
    batch = i_b.to(tl.int64)
    start = i_s * segment
    stop = tl.minimum(start + segment, L)

    rate = tl.load(A + i_k * a_k + n[:, None] * D + d[None, :], mask=known, other=0.0)
    bias = tl.zeros([BD], dtype=tl.float32)
    if HAS_BIAS:
        bias = tl.load(BIAS + i_k * bias_k + d, mask=inside, other=0.0)
    x_base = X + batch * x_b + i_k * x_k
    delta_base = DELTA + batch * delta_b + i_k * delta_k
    m_base = M + ((batch * KM + i_k % KM) * G + i_g) * L * N
    state = tl.zeros([NP, BD], dtype=tl.float32)
    total = tl.zeros([BD], dtype=tl.float32)
    for i in range(0, stop - start):
        if REVERSE:
            t = stop - 1 - i
        else:
            t = start + i
        token = t
        if ORDERED:
            token = tl.load(ORDER + i_k * L + t).to(tl.int32)
        at = t
        if PERMUTED:
            at = token
        raw = tl.load(delta_base + at * delta_l + d, mask=inside, other=0.0)
        delta = step_size(raw.to(tl.float32), bias, inside, SOFTPLUS)
        x = tl.load(x_base + token * x_l + d, mask=inside, other=0.0).to(tl.float32)
        m = tl.load(m_base + at * N + n, mask=n < N, other=0.0)
        decay = tl.exp2(delta[None, :] * rate)
        total += delta
        if REVERSE:
            if HAS_Z:
                gate = tl.load(Z + batch * z_b + token * z_l + d, mask=inside, other=0)
                gate = gate.to(tl.float32)
                x *= gate * sigmoid(gate)
            state = decay * (state + x[None, :] * m[:, None])
        else:
            state = decay * state + (delta * x)[None, :] * m[:, None]
    at = (batch * K + i_k) * S + i_s
    tl.store(LOCAL + at * N * D + n[:, None] * D + d[None, :], state, mask=known)
    tl.store(TOTAL + at * D + d, total, mask=inside & (i_j == 0))


@triton.jit(do_not_specialize=('D', 'S', 'slots', 'every', 'a_k'))
def carry_segments(
    LOCAL,
    TOTAL,
    A,
    START,
    OUT,
    a_k,
    D,
    S,
    slots,
    every,
    K: tl.constexpr,
    N: tl.constexpr,
    BLOCK: tl.constexpr,
    REVERSE: tl.constexpr,
    HAS_START: tl.constexpr,
):
    """Carry the state through all segments.

    In the forward pass, the true initial state of segment ``s`` is written to slot
    ``s * every - 1`` of ``OUT [B, K, slots, N, D]``; the first segment starts from
    zero. In reverse, the gradient that enters segment ``s`` from its end is written to
    slot ``s``, starting from ``START [B, K, N, D]`` if there is one.
    """
    bk = tl.program_id(1).to(tl.int64)
    cell = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = cell < N * D
    d = cell % D
    rate = tl.load(A + (bk % K) * a_k + cell, mask=inside, other=0.0)
    state = tl.zeros([BLOCK], dtype=tl.float32)
    if HAS_START:
        state = tl.load(START + bk * N * D + cell, mask=inside, other=0.0)
    for i in range(0, S):
        if REVERSE:
            s = S - 1 - i
            slot = s
        else:
            s = i
            slot = s * every - 1
        place_of = OUT + (bk * slots + slot) * N * D + cell
        tl.store(place_of, state, mask=inside & (slot >= 0))
        total = tl.load(TOTAL + (bk * S + s) * D + d, mask=inside, other=0.0)
        local = tl.load(LOCAL + (bk * S + s) * N * D + cell, mask=inside, other=0.0)
        state = tl.exp2(total * rate) * state + local
