"""Triton kernels of the depthwise causal convolution.

A program has a tile of steps and channels of one direction. Nothing is carried from
step to step, so that all tiles run side by side; a tile reads the few steps beside it
again, which its neighbour has just brought into the cache.
"""

import triton
import triton.language as tl


@triton.jit
def place(D, tiles, K: tl.constexpr, TT: tl.constexpr, BD: tl.constexpr):
    """The work item of a program; the directions vary fastest, then the channels.

    Returns:
        Direction, channels, tile number, steps, batch entry.
    """
    pid = tl.program_id(0)
    i_k = pid % K
    pid = pid // K
    blocks = tl.cdiv(D, BD)
    d = (pid % blocks) * BD + tl.arange(0, BD)
    pid = pid // blocks
    i_t = pid % tiles
    t = i_t * TT + tl.arange(0, TT)
    return i_k, d, i_t, t, (pid // tiles).to(tl.int64)


@triton.jit
def load_steps(base, stride, t, d, L, D):
    """Steps ``t`` of channels ``d`` in float32, zero outside of the sequence."""
    known = ((t >= 0) & (t < L))[:, None] & (d < D)[None, :]
    x = tl.load(base + t[:, None] * stride + d[None, :], mask=known, other=0.0)
    return x.to(tl.float32)


@triton.jit(do_not_specialize=('L', 'tiles'))
def conv_forward(
    X,
    TAPS,
    BIAS,
    REVERSE,
    Y,
    x_b,
    x_l,
    B,
    L,
    D,
    tiles,
    K: tl.constexpr,
    W: tl.constexpr,
    TT: tl.constexpr,
    BD: tl.constexpr,
    SILU: tl.constexpr,
):
    """``Y [K, B, L, D]``; ``TAPS`` are ``[W, K, D]``, the current step first."""
    i_k, d, i_t, t, i_b = place(D, tiles, K, TT, BD)
    inside = d < D
    ahead = tl.where(tl.load(REVERSE + i_k) != 0, 1, -1)
    bias = tl.load(BIAS + i_k * D + d, mask=inside, other=0.0)
    y = tl.zeros([TT, BD], dtype=tl.float32) + bias[None, :]
    for lag in tl.static_range(W):
        tap = tl.load(TAPS + (lag * K + i_k) * D + d, mask=inside, other=0.0)
        x = load_steps(X + i_b * x_b, x_l, t + ahead * lag, d, L, D)
        y += tap[None, :] * x
    if SILU:
        y *= 1.0 / (1.0 + tl.exp2(y * -1.4426950408889634))
    out = Y + (i_k * B + i_b) * L * D + t[:, None] * D + d[None, :]
    tl.store(out, y.to(Y.dtype.element_ty), mask=(t < L)[:, None] & inside[None, :])


@triton.jit(do_not_specialize=('L', 'tiles'))
def conv_weights(
    X,
    TAPS,
    BIAS,
    REVERSE,
    GRAD,
    INNER,
    PARTS,
    x_b,
    x_l,
    g_k,
    g_b,
    g_l,
    B,
    L,
    D,
    tiles,
    K: tl.constexpr,
    W: tl.constexpr,
    TT: tl.constexpr,
    BD: tl.constexpr,
    SILU: tl.constexpr,
):
    """Parts of the gradients of taps and bias, and the gradient before SiLU.

    ``PARTS [B, tiles, W + 1, K, D]`` has the taps and then the bias. ``INNER`` is
    ``[K, B, L, D]`` in float32.
    """
    i_k, d, i_t, t, i_b = place(D, tiles, K, TT, BD)
    inside = d < D
    ahead = tl.where(tl.load(REVERSE + i_k) != 0, 1, -1)
    grad = load_steps(GRAD + i_k * g_k + i_b * g_b, g_l, t, d, L, D)
    if SILU:
        bias = tl.load(BIAS + i_k * D + d, mask=inside, other=0.0)
        y = tl.zeros([TT, BD], dtype=tl.float32) + bias[None, :]
        for lag in tl.static_range(W):
            tap = tl.load(TAPS + (lag * K + i_k) * D + d, mask=inside, other=0.0)
            x = load_steps(X + i_b * x_b, x_l, t + ahead * lag, d, L, D)
            y += tap[None, :] * x
        gate = 1.0 / (1.0 + tl.exp2(y * -1.4426950408889634))
        grad *= gate * (1.0 + y * (1.0 - gate))
        to = INNER + (i_k * B + i_b) * L * D + t[:, None] * D + d[None, :]
        tl.store(to, grad, mask=(t < L)[:, None] & inside[None, :])
    part = PARTS + (((i_b * tiles + i_t) * (W + 1)) * K + i_k) * D + d
    for lag in tl.static_range(W):
        x = load_steps(X + i_b * x_b, x_l, t + ahead * lag, d, L, D)
        tl.store(part + lag * K * D, tl.sum(grad * x, axis=0), mask=inside)
    tl.store(part + W * K * D, tl.sum(grad, axis=0), mask=inside)


@triton.jit(do_not_specialize=('L', 'tiles'))
def conv_inputs(
    TAPS,
    REVERSE,
    GRAD,
    DX,
    g_k,
    g_b,
    g_l,
    L,
    D,
    tiles,
    K: tl.constexpr,
    W: tl.constexpr,
    TT: tl.constexpr,
    BD: tl.constexpr,
):
    """Gradient of the input ``[B, L, D]``, summed over the directions."""
    _, d, _, t, i_b = place(D, tiles, 1, TT, BD)
    inside = d < D
    dx = tl.zeros([TT, BD], dtype=tl.float32)
    for k in tl.static_range(K):
        ahead = tl.where(tl.load(REVERSE + k) != 0, 1, -1)
        for lag in tl.static_range(W):
            tap = tl.load(TAPS + (lag * K + k) * D + d, mask=inside, other=0.0)
            base = GRAD + k * g_k + i_b * g_b
            dx += tap[None, :] * load_steps(base, g_l, t - ahead * lag, d, L, D)
    out = DX + i_b * L * D + t[:, None] * D + d[None, :]
    tl.store(out, dx.to(DX.dtype.element_ty), mask=(t < L)[:, None] & inside[None, :])
