"""Tiles that the Triton kernels of the delta rule read.

Decays are powers of two whose exponents are sums of log decays from the start of the
chunk. After a strong decay a weak one would be lost in the rounding of such a sum. The
sum therefore has two parts: multiples of 2^-10, which float32 adds exactly, and the
rests, which stay below 2^-5. Differences of the parts give every decay between two
steps to the precision of float32.
"""

import triton
import triton.language as tl


@triton.jit
def load_rows(base, stride, t, c, live, inside):
    """Channels ``c`` of steps ``t`` in float32; zero where there is none."""
    at = base + t[:, None] * stride + c[None, :]
    return tl.load(at, mask=live[:, None] & inside[None, :], other=0.0).to(tl.float32)


@triton.jit
def load_square(base, t, SIDE: tl.constexpr):
    """A lower triangular matrix over the steps ``t`` of a chunk."""
    known = t[:, None] >= t[None, :]
    return tl.load(base + t[:, None] * SIDE + t[None, :], mask=known, other=0.0)


@triton.jit
def load_sums(HIGH, LOW, t, c, inside, KEYS, CHANNEL: tl.constexpr):
    """Sums of log decays up to the steps ``t``: of channels ``c``, or one for all."""
    if CHANNEL:
        at = t[:, None] * KEYS + c[None, :]
        known = (t >= 0)[:, None] & inside[None, :]
        high = tl.load(HIGH + at, mask=known, other=0.0)
        return high, tl.load(LOW + at, mask=known, other=0.0)
    else:
        high = tl.load(HIGH + t, mask=t >= 0, other=0.0)
        low = tl.load(LOW + t, mask=t >= 0, other=0.0)
        return high[:, None], low[:, None]


@triton.jit
def load_total(HIGH, LOW, c, inside, KEYS, CHANNEL: tl.constexpr, BT: tl.constexpr):
    """Sums of log decays of the whole chunk, one for each of ``c`` or one for all."""
    if CHANNEL:
        at = (BT - 1) * KEYS + c
        high = tl.load(HIGH + at, mask=inside, other=0.0)
        return high, tl.load(LOW + at, mask=inside, other=0.0)
    else:
        at = BT - 1 + c * 0
        return tl.load(HIGH + at), tl.load(LOW + at)


@triton.jit(do_not_specialize=('L', 'NC'))
def delta_sums(
    GATE,
    HIGH,
    LOW,
    g_b,
    g_l,
    g_h,
    g_d,
    L,
    NC,
    H,
    KEYS,
    BT: tl.constexpr,
    BD: tl.constexpr,
):
    """Sums of log decays from the start of each chunk, ``[B * H, NC, BT, KEYS]``.

    Decays below 2^-160 become 2^-160, which is zero in float32, and the exact sums of
    64 of them stay below 2^24 units.
    """
    pid = tl.program_id(0)
    blocks = tl.cdiv(KEYS, BD)
    c = (pid % blocks) * BD + tl.arange(0, BD)
    pid = (pid // blocks).to(tl.int64)
    start = (pid % NC) * BT
    i_b = pid // NC // H
    i_h = pid // NC % H
    row = tl.arange(0, BT)
    known = (start + row < L)[:, None] & (c < KEYS)[None, :]
    base = GATE + i_b * g_b + i_h * g_h + start * g_l
    at = base + row[:, None] * g_l + c[None, :] * g_d
    x = tl.load(at, mask=known, other=0.0).to(tl.float32) * 1.4426950408889634
    x = tl.maximum(x, -160.0)
    high = tl.floor(x * 1024.0 + 0.5) * 0.0009765625
    to = pid * BT * KEYS + row[:, None] * KEYS + c[None, :]
    inside = (c < KEYS)[None, :] & (row >= 0)[:, None]
    tl.store(HIGH + to, tl.cumsum(high, axis=0), mask=inside)
    tl.store(LOW + to, tl.cumsum(x - high, axis=0), mask=inside)
