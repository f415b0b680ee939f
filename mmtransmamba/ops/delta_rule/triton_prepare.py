"""Triton kernels of the products between the steps of a chunk, all chunks at once.

With the decays e from the start of a chunk,

    recalls  M_ij = k_i^T (e_i / e_j * k_j),  j < i,
    reads    P_ij = s q_i^T (e_i / e_j * k_j),  j <= i,
    solved   (I + M diag(beta))^-1.

Powers of M would lose all digits when keys resemble each other. Blocks of 16 steps on
the diagonal are therefore inverted by forward substitution, and pairs of inverted
blocks are joined until one block is left.
"""

import triton
import triton.language as tl

from .triton_tiles import load_rows, load_square

BLOCK = tl.constexpr(16)


@triton.jit
def solve(system, BT: tl.constexpr, EXACT: tl.constexpr):
    """Inverse of ``I + system`` for a strictly lower triangular ``[BT, BT]``."""
    NB: tl.constexpr = BT // BLOCK
    JOINS: tl.constexpr = 0 if NB == 1 else 1 if NB == 2 else 2
    block = tl.arange(0, NB)
    own = (block[:, None] == block[None, :])[:, None, :, None]
    blocks = tl.reshape(system, [NB, BLOCK, NB, BLOCK])
    blocks = tl.sum(tl.where(own, blocks, 0.0), axis=2)
    step = tl.arange(0, BLOCK)
    row = step[None, :, None]
    column = step[None, None, :]
    found = tl.where(row == column, 1.0, tl.zeros([NB, BLOCK, BLOCK], dtype=tl.float32))
    for j in range(BLOCK - 1):
        below = tl.sum(tl.where(column == j, blocks, 0.0), axis=2)
        known = tl.sum(tl.where(row == j, found, 0.0), axis=1)
        found -= below[:, :, None] * known[:, None, :]
    y = tl.reshape(tl.where(own, found[:, :, None, :], 0.0), [BT, BT])
    t = tl.arange(0, BT)
    side = 16
    for _ in range(JOINS):
        apart = t[:, None] // side != t[None, :] // side
        side = side * 2
        joined = apart & (t[:, None] // side == t[None, :] // side)
        link = tl.dot(tl.where(joined, system, 0.0), y, input_precision=EXACT)
        y -= tl.dot(y, link, input_precision=EXACT)
    return y


@triton.jit
def store_square(base, t, x, SIDE: tl.constexpr):
    """The lower triangle of a matrix over the steps ``t`` of a chunk."""
    known = t[:, None] >= t[None, :]
    tl.store(base + t[:, None] * SIDE + t[None, :], x, mask=known)


@triton.jit(do_not_specialize=('L', 'NC'))
def delta_prepare(
    QUERY,
    KEY,
    BETA,
    HIGH,
    LOW,
    RECALLS,
    READS,
    SOLVED,
    q_b,
    q_l,
    q_h,
    k_b,
    k_l,
    k_h,
    beta_b,
    beta_l,
    beta_h,
    scale,
    L,
    NC,
    H,
    REPEATS,
    KEYS,
    BT: tl.constexpr,
    BK: tl.constexpr,
    KEEP: tl.constexpr,
    EXACT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Lower triangles of the matrices ``[B * H, NC, BT, BT]``, one decay per head.

    The recalls are stored if ``KEEP``.
    """
    pid = tl.program_id(0).to(tl.int64)
    start = (pid % NC) * BT
    i_b = pid // NC // H
    i_h = pid // NC % H
    q_base = QUERY + i_b * q_b + (i_h // REPEATS) * q_h + start * q_l
    k_base = KEY + i_b * k_b + (i_h // REPEATS) * k_h + start * k_l
    t = tl.arange(0, BT)
    live = t < L - start
    m = tl.zeros([BT, BT], dtype=tl.float32)
    p = tl.zeros([BT, BT], dtype=tl.float32)
    for first in range(0, KEYS, BK):
        c = first + tl.arange(0, BK)
        inside = c < KEYS
        key = load_rows(k_base, k_l, t, c, live, inside)
        query = load_rows(q_base, q_l, t, c, live, inside)
        m += tl.dot(key, tl.trans(key), input_precision=PRECISION)
        p += tl.dot(query, tl.trans(key), input_precision=PRECISION)
    high = tl.load(HIGH + pid * BT + t)
    low = tl.load(LOW + pid * BT + t)
    log = (high[:, None] - high[None, :]) + (low[:, None] - low[None, :])
    before = t[:, None] > t[None, :]
    decay = tl.exp2(tl.where(before, log, 0.0))
    square = pid * BT * BT
    store_square(READS + square, t, p * decay * scale, BT)
    m = tl.where(before, m * decay, 0.0)
    if KEEP:
        store_square(RECALLS + square, t, m, BT)
    at = BETA + i_b * beta_b + i_h * beta_h + (start + t) * beta_l
    beta = tl.load(at, mask=live, other=0.0).to(tl.float32)
    store_square(SOLVED + square, t, solve(m * beta[None, :], BT, EXACT), BT)


@triton.jit(do_not_specialize=('L', 'NC'))
def delta_solve(
    BETA,
    RECALLS,
    SOLVED,
    beta_b,
    beta_l,
    beta_h,
    L,
    NC,
    H,
    BT: tl.constexpr,
    EXACT: tl.constexpr,
):
    """The inverse from stored recalls."""
    pid = tl.program_id(0).to(tl.int64)
    start = (pid % NC) * BT
    i_b = pid // NC // H
    i_h = pid // NC % H
    t = tl.arange(0, BT)
    square = pid * BT * BT
    m = load_square(RECALLS + square, t, BT)
    at = BETA + i_b * beta_b + i_h * beta_h + (start + t) * beta_l
    beta = tl.load(at, mask=t < L - start, other=0.0).to(tl.float32)
    store_square(SOLVED + square, t, solve(m * beta[None, :], BT, EXACT), BT)
