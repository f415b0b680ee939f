"""Functions shared by the Triton kernels of ``bi_wkv``.

A weight ``e^{k - n w}`` may grow without bound when w is negative. Every sum therefore
carries the exponent of its largest term, as a pair and not as one number: two exponents
of thousands may lie close together, and then the difference of the pairs is exact where
that of rounded numbers is not. A sum is the tuple ``(scale, steps, x, y)``, which
stands for ``e^{scale - steps * w} (x, y)``. The scale of an empty sum is -inf; two
empty sums must never be added.

Every lane owns one channel. Nothing is exchanged between lanes.
"""

import triton
import triton.language as tl

LOWEST = tl.constexpr(-3.4028234663852886e38)


@triton.jit
def exp(x):
    """e^x with a base-2 exponential, which is one operation of the hardware."""
    return tl.exp2(x * 1.4426950408889634)


@triton.jit
def empty(BC: tl.constexpr):
    """The sum over no tokens."""
    zero = tl.zeros([BC], dtype=tl.float32)
    return tl.full([BC], float('-inf'), dtype=tl.float32), zero, zero, zero


@triton.jit
def meet(scale_a, steps_a, scale_b, steps_b, w):
    """The larger of two exponents and the factors to it, with one exponential."""
    gap = (scale_a - scale_b) - (steps_a - steps_b) * w
    smaller = exp(-tl.abs(gap))
    a_leads = gap > 0.0
    return (
        tl.where(a_leads, scale_a, scale_b),
        tl.where(a_leads, steps_a, steps_b),
        tl.where(a_leads, 1.0, smaller),
        tl.where(a_leads, smaller, 1.0),
    )


@triton.jit
def add(a, b, w):
    """The sum of two sums."""
    scale, steps, of_a, of_b = meet(a[0], a[1], b[0], b[1], w)
    return scale, steps, of_a * a[2] + of_b * b[2], of_a * a[3] + of_b * b[3]


@triton.jit
def advance(a, distance):
    """The same sum, seen from some steps further away."""
    return a[0], a[1] + distance, a[2], a[3]


@triton.jit
def choose(condition, a, b):
    """Sum ``a`` where the condition holds, else ``b``."""
    return (
        tl.where(condition, a[0], b[0]),
        tl.where(condition, a[1], b[1]),
        tl.where(condition, a[2], b[2]),
        tl.where(condition, a[3], b[3]),
    )


@triton.jit
def with_token(a, k, v, w):
    """Sum ``a`` seen from one step further away, plus a token beside the observer."""
    zero = tl.zeros_like(k)
    return add((a[0], a[1] + 1.0, a[2], a[3]), (k, zero, v, zero + 1.0), w)


@triton.jit
def read_out(past, future, w, u, k, v):
    """Output of one step from the sums over the tokens before and after it.

    The exponent u + k of the token itself is not rounded to one number either.

    Returns:
        tuple: ``scale`` and ``steps`` of the largest term except the token's own; with
        them, the denominator is ``e^{scale - steps * w} / inverse``. Then ``inverse``,
        the token's share of its own output, and the parts of the output from either
        direction; the token itself belongs to the past.
    """
    zero = tl.zeros_like(k)
    # The constant 10^-6 of the denominator.
    epsilon = zero - 13.815510557964274
    a_scale, a_steps, of_past, of_epsilon = meet(past[0], past[1], epsilon, zero, w)
    scale, steps, of_a, of_future = meet(a_scale, a_steps, future[0], future[1], w)
    of_past *= of_a
    others = of_past * past[3] + of_epsilon * of_a + of_future * future[3]
    gap = ((k - scale) + steps * w) + u
    smaller = exp(-tl.abs(gap))
    leads = gap > 0.0
    own = tl.where(leads, 1.0, smaller)
    rest = tl.where(leads, smaller, 1.0)
    # The largest of all terms is 1.
    reciprocal = 1.0 / (own + rest * others)
    share = own * reciprocal
    inverse = rest * reciprocal
    before = of_past * past[2] * inverse + share * v
    after = of_future * future[2] * inverse
    return scale, steps, inverse, share, before, after


@triton.jit
def place(C, NS, BC: tl.constexpr):
    """The work item of a program: channels, piece of the sequence, batch entry."""
    pid = tl.program_id(0)
    blocks = tl.cdiv(C, BC)
    c = (pid % blocks) * BC + tl.arange(0, BC)
    pid = pid // blocks
    return c, pid % NS, (pid // NS).to(tl.int64)


@triton.jit
def load_rows(base, stride, start, T, c, inside, COUNT: tl.constexpr):
    """Channels ``c`` of ``COUNT`` tokens, in float32; past the end, the last token."""
    rows = ()
    for j in tl.static_range(COUNT):
        t = tl.minimum(start + j, T - 1)
        row = tl.load(base + t * stride + c, mask=inside, other=0.0)
        rows = rows + (row.to(tl.float32),)
    return rows


@triton.jit
def load_keys(base, stride, start, T, c, inside, COUNT: tl.constexpr):
    """Like ``load_rows``; a key of -inf becomes the most negative finite number."""
    rows = ()
    for j in tl.static_range(COUNT):
        t = tl.minimum(start + j, T - 1)
        row = tl.load(base + t * stride + c, mask=inside, other=0.0).to(tl.float32)
        # Not a maximum, which would hide NaN.
        rows = rows + (tl.where(row < LOWEST, LOWEST, row),)
    return rows


@triton.jit
def load_sum(SUMS, at, C, c, inside):
    """Sum number ``at`` of ``SUMS [..., 4, C]``."""
    base = SUMS + at * 4 * C + c
    return (
        tl.load(base, mask=inside, other=0.0),
        tl.load(base + C, mask=inside, other=0.0),
        tl.load(base + 2 * C, mask=inside, other=0.0),
        tl.load(base + 3 * C, mask=inside, other=0.0),
    )


@triton.jit
def store_sum(SUMS, at, C, c, inside, a):
    """Counterpart of ``load_sum``."""
    base = SUMS + at * 4 * C + c
    tl.store(base, a[0], mask=inside)
    tl.store(base + C, a[1], mask=inside)
    tl.store(base + 2 * C, a[2], mask=inside)
    tl.store(base + 3 * C, a[3], mask=inside)


@triton.jit
def futures_of(ks, vs, after, start, T, w, COUNT: tl.constexpr):
    """For each of ``COUNT`` tokens, the sum over the tokens after it.

    Args:
        ks, vs: Rows of the tokens.
        after: Sum over the tokens after the last of them.

    Returns:
        tuple: Scales, steps, values and weights, each a tuple of ``COUNT`` rows.
    """
    future = after
    scales = ()
    steps = ()
    xs = ()
    ys = ()
    for j in tl.static_range(COUNT - 1, -1, -1):
        scales = (future[0],) + scales
        steps = (future[1],) + steps
        xs = (future[2],) + xs
        ys = (future[3],) + ys
        live = start + j < T
        future = choose(live, with_token(future, ks[j], vs[j], w), future)
    return scales, steps, xs, ys
