"""Functions shared by the Triton kernels of the selective scan.

Imported only when a kernel is launched. The functions use neither libdevice nor inline
assembly, which Triton's interpreter does not support.
"""

import triton
import triton.language as tl


@triton.jit
def softplus(x):
    """ln(1 + e^x) as ``max(x, 0) + 2 artanh(z / (2 + z))`` with ``z = e^-|x|``.

    The series of artanh is truncated after seven terms. Its argument is at most 1/3, so
    the error is below one unit of float32 everywhere; ``log(1 + e^x)`` loses four
    digits at the small steps that a Mamba starts from.
    """
    z = tl.exp2(tl.abs(x) * -1.4426950408889634)
    s = z / (2.0 + z)
    q = s * s
    series = 0.1111111111 + q * (0.0909090909 + q * 0.0769230769)
    series = 1.0 + q * (0.3333333333 + q * (0.2 + q * (0.1428571429 + q * series)))
    return tl.maximum(x, 0.0) + 2.0 * s * series


@triton.jit
def sigmoid(x):
    """1 / (1 + e^-x) with a base-2 exponential."""
    return 1.0 / (1.0 + tl.exp2(x * -1.4426950408889634))


@triton.jit
def load_tokens(order, t0, L, COUNT: tl.constexpr, ORDERED: tl.constexpr):
    """Tokens of the steps ``t0 ... t0 + COUNT``; past the end, the last token."""
    tokens = ()
    for j in tl.static_range(COUNT):
        step = tl.minimum(t0 + j, L - 1)
        if ORDERED:
            tokens = tokens + (tl.load(order + step).to(tl.int32),)
        else:
            tokens = tokens + (step,)
    return tokens


@triton.jit
def load_rows(base, stride, tokens, d, inside, COUNT: tl.constexpr):
    """Channels ``d`` of ``COUNT`` tokens, in float32."""
    rows = ()
    for j in tl.static_range(COUNT):
        row = tl.load(base + tokens[j] * stride + d, mask=inside, other=0.0)
        rows = rows + (row.to(tl.float32),)
    return rows


@triton.jit
def step_size(raw, bias, live, SOFTPLUS: tl.constexpr):
    """Delta of a step; zero past the end of the sequence, which preserves the state."""
    x = raw + bias
    if SOFTPLUS:
        x = softplus(x)
    return tl.where(live, x, 0.0)


@triton.jit
def place(G, WIDTH, S, K: tl.constexpr, J: tl.constexpr, BD: tl.constexpr):
    """The work item of a program, from its number; the directions vary fastest.

    Programs that read the same channels of ``u`` then run side by side.

    Returns:
        Direction, group of states, block of channels, group of channels, first
        channel of the block within its group, segment, batch entry.
    """
    pid = tl.program_id(0)
    i_k = pid % K
    pid = pid // K
    i_j = pid % J
    pid = pid // J
    blocks = tl.cdiv(WIDTH, BD)
    i_c = pid % (blocks * G)
    pid = pid // (blocks * G)
    i_g = i_c // blocks
    first = (i_c % blocks) * BD
    return i_k, i_j, i_c, i_g, first, pid % S, pid // S
