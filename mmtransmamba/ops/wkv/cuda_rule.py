"""The function that the published CUDA kernels of Vision-RWKV (v4) compute, in torch.

The kernels divide the T tokens into 32 chunks of n = ceil(T / 32), and differ from the
formula across chunk borders. Let s be the first token of the chunk of token t. Then
token j has the weight ``e^{k_j}`` times

* ``e^{-w (t - j)}`` for j < s, one decay too many,
* ``e^{-w (t - j - 1)}`` for s <= j < t, as in the formula,
* ``e^{-w (j - t)}`` for j > t, again one too many,

and for every s < j <= t, including token t itself, ``e^{w (t - j)} (1 - e^w)`` is
added. Weights released with that code were trained with this rule. At the decays of
the trained models the difference is about 1e-5; this rule serves to reproduce their
outputs exactly. With a large positive w its weights become negative, and the
denominator can vanish. That is a property of the rule, not a matter of precision.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from .reference import (
    Own,
    Sums,
    divide,
    future_sums,
    past_sums,
    refuses,
    unavailable,
)

__all__ = ['bi_wkv', 'refuses', 'unavailable']

CHUNKS = 32


def bi_wkv(
    w: Tensor,
    u: Tensor,
    k: Tensor,
    v: Tensor,
    separate: bool,
    past_sums: Callable[..., Sums] = past_sums,
) -> Tensor:
    """Like ``bi_wkv`` of the reference backend, by the rule above, in O(T).

    Args:
        w, u, k, v, separate: As for ``bi_wkv``.
        past_sums: Function that computes the sums over the previous tokens, like the
            reference backend's function of this name.
    """
    length = k.shape[1]
    size = math.ceil(length / CHUNKS)
    count = math.ceil(length / size)
    # After the last token: it is later than all others and changes no output.
    chunked = [
        pad(x, (0, 0, 0, count * size - length)).unflatten(1, (count, size))
        for x in (k, v)
    ]

    def flat(sums: Sums) -> Sums:
        return Sums(*(x.flatten(1, 2)[:, :length] for x in sums))

    before = Sums(*(x[:, ::size, None] for x in past_sums(w, k, v)))
    distance = torch.arange(1, size + 1, device=k.device, dtype=k.dtype)[:, None]
    older = flat(
        Sums(
            before.scale.expand_as(chunked[0]),
            before.steps + distance,
            before.values.expand_as(chunked[1]),
            before.weights.expand_as(chunked[1]),
        )
    )
    past = [older, flat(past_sums(w, *chunked))]
    if size > 1:
        # Shifted by one token, the sums before a token include the token itself.
        inner = [pad(x[:, :, 1:], (0, 0, 0, 1)) for x in chunked]
        extra = past_sums(-w, *inner)
        # 1 - e^w, where e^w is part of the exponent where it might overflow.
        grows = (w > 0).to(w.dtype)
        factor = -torch.expm1(-w.abs()) * (1 - 2 * grows)
        past.append(
            flat(
                Sums(
                    extra.scale,
                    # This term decays by -w.
                    -extra.steps - grows,
                    factor * extra.values,
                    factor * extra.weights,
                )
            )
        )
    future = future_sums(w, k, v, past_sums)
    future = future._replace(steps=future.steps + 1)
    return divide(w, Own(u, k, v), past, [future], separate)
