"""The public functions: check the arguments, choose a backend, keep dtypes."""

import torch
from torch import Tensor

from .. import backends
from ..arguments import check_tensors, upcast
from . import (
    cuda_rule,
    native,
    portable,
    portable_cuda_rule,
    reference,
    shapes,
    triton,
)
from .arguments import check_taps, check_wkv, check_wkv6

# Each rule of bi_wkv is a separate op, because not every backend supports both.
_RULES = {'formula': 'bi_wkv', 'cuda': 'bi_wkv_cuda_rule'}

_BACKENDS = {
    'triton': triton,
    'native': native,
    'shapes': shapes,
    'reference': reference,
    'portable': portable,
}

backends.register('bi_wkv', _BACKENDS)
backends.register(
    'bi_wkv_cuda_rule',
    {'shapes': shapes, 'reference': cuda_rule, 'portable': portable_cuda_rule},
)
backends.register('bi_wkv6', _BACKENDS)

# exp(-exp(w)) is 0 in every dtype from this value on, and exp(w) must not overflow in
# the gradient.
_LARGEST_W6 = 10.0
# w times the number of tokens must stay this far below the largest number.
_ROOM = 8.0


def bi_wkv(
    w: Tensor,
    u: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    tap_index: Tensor | None = None,
    rule: str = 'formula',
    backend: str | None = None,
) -> tuple[Tensor, Tensor | None]:
    r"""Bidirectional WKV of Vision-RWKV (v4), arXiv:2403.02308, equation 7.

    Per channel, over all T tokens,

    .. math::
        y_t = \frac{\sum_{i \ne t} e^{-(|t - i| - 1) w + k_i} v_i + e^{u + k_t} v_t}
                   {\sum_{i \ne t} e^{-(|t - i| - 1) w + k_i} + e^{u + k_t} + 10^{-6}}

    in O(T) time and memory, forward and backward. ``w`` and ``u`` are used as given;
    a model divides them by T first. ``w`` may be negative, so that distant tokens
    have larger weights. Sums are computed relative to their largest term and never
    overflow, whatever the size of ``w``, ``u`` and ``k``. A token whose key is -inf has
    no weight. Half precision is computed in float32, and ``y`` is returned in the dtype
    of ``k``. Any strides and an empty batch are accepted.

    ``rule='cuda'`` reproduces the published CUDA kernels instead, with which the
    released weights were trained. Only the ``reference`` backend supports it, see
    :mod:`mmtransmamba.ops.wkv.cuda_rule`.

    The sums have two directions, called ``bidirectional`` in
    :mod:`mmtransmamba.ops.scan_order`. Direction 0 runs forwards through the tokens,
    reads token t in step t, and sums the past and token t itself. Direction 1 runs
    backwards, reads token T - 1 - s in step s, and sums the future alone. Each is
    divided by the common denominator; their sum is y.

    Args:
        w (Tensor): Decay per step ``[C]``.
        u (Tensor): Bonus of a token for itself ``[C]``.
        k (Tensor): Keys ``[B, T, C]``.
        v (Tensor): Values ``[B, T, C]``.
        tap_index (Tensor, optional): Int64 ``[2, M]``, steps of each direction whose
            own output is returned as well.
        rule (str): ``'formula'`` or ``'cuda'``.
        backend (str, optional): See :mod:`mmtransmamba.ops.backends`.

    Returns:
        tuple[Tensor, Tensor | None]: Output ``[B, T, C]`` and the tapped outputs
        ``[B, 2, M, C]`` (None without ``tap_index``), both in the dtype of ``k`` and
        differentiable.

    Raises:
        ValueError: If a shape, dtype or device does not fit, for an unknown rule, or
            for an unknown backend or one that cannot take these tensors.
        RuntimeError: If the backend asked for is not available.
    """
    if rule not in _RULES:
        raise ValueError(f'rule {rule!r} is unknown; accepted: {", ".join(_RULES)}')
    named = dict(k=k, v=v, w=w, u=u)
    compute = check_tensors(**named)
    check_wkv(**named)
    check_taps(tap_index, k)
    module = backends.resolve(_RULES[rule], named, backend)
    if getattr(module, 'TAKES_HALF_PRECISION', False):
        named |= upcast(dict(w=w, u=u), compute)
    else:
        named = upcast(named, compute)
        # Such a key has no weight, nor has one of -inf.
        named['k'] = named['k'].clamp(min=torch.finfo(compute).min)
    named['w'] = _within_bounds(named['w'], k.shape[1])
    return _outputs(
        module.bi_wkv(**named, separate=tap_index is not None), tap_index, k
    )


def bi_wkv6(
    r: Tensor,
    k: Tensor,
    v: Tensor,
    w: Tensor,
    u: Tensor,
    *,
    tap_index: Tensor | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor | None]:
    r"""Bidirectional WKV with a matrix state (RWKV v6), for vision.

    Per head of width D, with the decay :math:`a_t = \exp(-\exp(w_t))` of every token
    and channel, the forward direction has a state of D x D numbers,

    .. math::
        S_t = \mathrm{diag}(a_t) S_{t-1} + k_t v_t^\top, \qquad
        y_t = r_t^\top (S_{t-1} + \mathrm{diag}(u) k_t v_t^\top),

    and the backward direction does the same from the last token on, without the
    term in u. The output is their sum. Time and memory are linear in T. Dtypes,
    strides, directions and taps are those of :func:`bi_wkv`.

    Args:
        r (Tensor): Receptance ``[B, T, C]``, C = H * D.
        k (Tensor): Keys ``[B, T, C]``.
        v (Tensor): Values ``[B, T, C]``.
        w (Tensor): Logarithm of the decay rates ``[B, T, C]``.
        u (Tensor): Bonus of a token for itself ``[H, D]``.
        tap_index (Tensor, optional): Int64 ``[2, M]``, steps of each direction whose
            own output is returned as well.
        backend (str, optional): See :mod:`mmtransmamba.ops.backends`.

    Returns:
        tuple[Tensor, Tensor | None]: Output ``[B, T, C]`` and the tapped outputs
        ``[B, 2, M, C]`` (None without ``tap_index``), both in the dtype of ``k`` and
        differentiable.

    Raises:
        ValueError: If a shape, dtype or device does not fit, or for an unknown
            backend or one that cannot take these tensors.
        RuntimeError: If the backend asked for is not available.
    """
    named = dict(k=k, r=r, v=v, w=w, u=u)
    compute = check_tensors(**named)
    check_wkv6(**named)
    check_taps(tap_index, k)
    module = backends.resolve('bi_wkv6', named, backend)
    if getattr(module, 'TAKES_HALF_PRECISION', False):
        named |= upcast(dict(w=w, u=u), compute)
    else:
        named = upcast(named, compute)
    named['decay'] = torch.exp(-torch.exp(named.pop('w').clamp(max=_LARGEST_W6)))
    return _outputs(
        module.bi_wkv6(**named, separate=tap_index is not None), tap_index, k
    )


def _within_bounds(w: Tensor, length: int) -> Tensor:
    """Decays whose exponents are finite and have finite differences.

    Clamping does not change the result: a decay that large outweighs any key except
    those near the largest number.
    """
    bound = torch.finfo(w.dtype).max / (_ROOM * length)
    return w.clamp(-bound, bound)


def _outputs(
    y_BSTC: Tensor, tap_index: Tensor | None, k: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Sum of the directions, and the output of each at its tapped steps.

    Args:
        y_BSTC: ``[B, 1, T, C]``, or ``[B, 2, T, C]`` if there are steps to tap, in
            token order.
        tap_index: ``[2, M]``.
        k: Sets the dtype of the results.
    """
    if tap_index is None:
        return y_BSTC.squeeze(1).to(k.dtype), None
    forward, backward = tap_index
    token_SM = torch.stack([forward, k.shape[1] - 1 - backward])
    token_BSMC = token_SM[:, :, None].expand(k.shape[0], -1, -1, k.shape[2])
    taps_BSMC = y_BSTC.gather(2, token_BSMC)
    return y_BSTC.sum(1).to(k.dtype), taps_BSMC.to(k.dtype)
