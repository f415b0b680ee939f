"""Triton kernels of the gated norm.

A program has ``R`` tokens and one group of channels, whose columns are padded to
``BG``. Every operand is read once, and nothing is shared between programs.
"""

import triton
import triton.language as tl


@triton.jit
def gate_of(z, SILU: tl.constexpr):
    """The gate, and its derivative."""
    s = 1 / (1 + tl.exp(-z))
    if SILU:
        return z * s, s * (1 + z * (1 - s))
    return s, s * (1 - s)


@triton.jit
def norm_forward(
    Y,
    Z,
    W,
    OUT,
    y_m,
    z_m,
    M,
    D,
    G,
    eps,
    R: tl.constexpr,
    BG: tl.constexpr,
    HAS_Z: tl.constexpr,
    GATE_FIRST: tl.constexpr,
    SILU: tl.constexpr,
):
    """Normalise ``R`` tokens of one group.

    Args:
        Y, Z: ``[M, D]`` with unit stride over D; rows are ``y_m``, ``z_m`` apart.
        W: ``[D]``.
        OUT: ``[M, D]``, contiguous.
    """
    m = tl.program_id(0) * R + tl.arange(0, R)[:, None]
    column = tl.arange(0, BG)[None, :]
    d = tl.program_id(1) * G + column
    live = (m < M) & (column < G)
    m = m.to(tl.int64)
    y = tl.load(Y + m * y_m + d, live, 0.0).to(tl.float32)
    w = tl.load(W + d, column < G, 0.0).to(tl.float32)
    if HAS_Z:
        a, _ = gate_of(tl.load(Z + m * z_m + d, live, 0.0).to(tl.float32), SILU)
        if GATE_FIRST:
            y = y * a
    out = y * tl.rsqrt(tl.sum(y * y, 1, keep_dims=True) / G + eps) * w
    if HAS_Z and not GATE_FIRST:
        out = out * a
    tl.store(OUT + m * D + d, out.to(OUT.dtype.element_ty), live)


@triton.jit
def norm_backward(
    GRAD,
    Y,
    Z,
    W,
    DY,
    DZ,
    PARTS,
    g_m,
    y_m,
    z_m,
    M,
    D,
    G,
    eps,
    tiles,
    R: tl.constexpr,
    BG: tl.constexpr,
    HAS_Z: tl.constexpr,
    GATE_FIRST: tl.constexpr,
    SILU: tl.constexpr,
):
    """Gradients of ``tiles`` times ``R`` tokens of one group.

    The gradient of the weight is summed over the program's tokens, and over programs by
    the caller, always in the same order.

    Args:
        GRAD, Y, Z: ``[M, D]``, as in :func:`norm_forward`.
        W: ``[D]``.
        DY, DZ: ``[M, D]``, contiguous.
        PARTS: Sums of the weight's gradient, ``[programs, D]`` in float32.
    """
    column = tl.arange(0, BG)[None, :]
    d = tl.program_id(1) * G + column
    w = tl.load(W + d, column < G, 0.0).to(tl.float32)
    dw = tl.zeros((1, BG), tl.float32)
    for tile in range(tiles):
        m = (tl.program_id(0) * tiles + tile) * R + tl.arange(0, R)[:, None]
        live = (m < M) & (column < G)
        m = m.to(tl.int64)
        y = tl.load(Y + m * y_m + d, live, 0.0).to(tl.float32)
        grad = tl.load(GRAD + m * g_m + d, live, 0.0).to(tl.float32)
        t = y
        inner = grad
        if HAS_Z:
            z = tl.load(Z + m * z_m + d, live, 0.0).to(tl.float32)
            a, slope = gate_of(z, SILU)
            if GATE_FIRST:
                t = y * a
            else:
                inner = grad * a
        scale = tl.rsqrt(tl.sum(t * t, 1, keep_dims=True) / G + eps)
        hat = t * scale
        dw += tl.sum(inner * hat, 0, keep_dims=True)
        dhat = inner * w
        mean = tl.sum(dhat * hat, 1, keep_dims=True) / G
        dt = scale * (dhat - hat * mean)
        if HAS_Z:
            if GATE_FIRST:
                dz = dt * y * slope
                dt = dt * a
            else:
                dz = grad * hat * w * slope
            tl.store(DZ + m * D + d, dz.to(DZ.dtype.element_ty), live)
        tl.store(DY + m * D + d, dt.to(DY.dtype.element_ty), live)
    tl.store(PARTS + tl.program_id(0) * D + d, dw, column < G)
