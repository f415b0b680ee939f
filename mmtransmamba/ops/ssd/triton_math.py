"""Functions shared by the Triton kernels of SSD.

Imported only when a kernel is launched.

Shape suffixes: Q steps of a chunk.
"""

import triton
import triton.language as tl

from ..triton_runtime import INTERPRETED

# The interpreter multiplies the bits of bfloat16 as if they were integers.
WIDEN = tl.constexpr(INTERPRETED)


@triton.jit
def place(H, NC):
    """The work item of a program; heads, which share B and C, vary fastest.

    Returns:
        Head, or group or part of one; chunk; batch entry.
    """
    pid = tl.program_id(0)
    i_h = pid % H
    pid = pid // H
    return i_h, pid % NC, (pid // NC).to(tl.int64)


@triton.jit
def load_tile(base, stride, row, rows, column, columns):
    """Rows and columns of a matrix of unit column stride, zero outside of it."""
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    at = base + row[:, None] * stride + column[None, :]
    return tl.load(at, mask=inside, other=0.0)


@triton.jit
def load_steps(base, stride, t, L):
    """A number per step in float32, zero outside of the sequence."""
    return tl.load(base + t * stride, mask=t < L, other=0.0).to(tl.float32)


@triton.jit
def load_sums(SUMS, i):
    """Sums of logarithms of decays up to steps ``i`` of a chunk: whole and rest."""
    return tl.load(SUMS + 2 * i), tl.load(SUMS + 2 * i + 1)


@triton.jit
def decay_from_start(SUMS, i):
    """Decay from before the chunk to steps ``i``."""
    whole, rest = load_sums(SUMS, i)
    return tl.exp2(whole + rest)


@triton.jit
def decay_to_end(SUMS, i, Q: tl.constexpr):
    """Decay from steps ``i`` to the end of the chunk."""
    whole, rest = load_sums(SUMS, i)
    last_whole, last_rest = load_sums(SUMS, Q - 1)
    return tl.exp2((last_whole - whole) + (last_rest - rest))


@triton.jit
def decay_between(SUMS, later, earlier):
    """Decay between any two steps; 0 where ``later`` is before ``earlier``.

    Args:
        SUMS: The sums of a chunk.
        later, earlier: Steps ``[.., 1]`` and ``[1, ..]``, or the other way round.
    """
    whole_t, rest_t = load_sums(SUMS, later)
    whole_s, rest_s = load_sums(SUMS, earlier)
    log = (whole_t - whole_s) + (rest_t - rest_s)
    # Before the exponential, which would overflow.
    return tl.exp2(tl.where(later >= earlier, log, float('-inf')))


@triton.jit
def product(a, b, total, MIX: tl.constexpr, PRECISION: tl.constexpr):
    """``total + a @ b`` in float32, of factors rounded to ``MIX``."""
    a = a.to(MIX)
    b = b.to(MIX)
    if WIDEN:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, total, input_precision=PRECISION)
