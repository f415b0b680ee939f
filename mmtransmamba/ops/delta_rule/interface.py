"""The public functions: check the arguments, choose a backend, keep dtypes."""

import torch
from torch import Tensor

from .. import backends
from ..arguments import check_tensors, upcast
from . import chunked, fla, native, reference, shapes, triton
from .arguments import check_begins, check_scan, check_step
from .step import step

OP = 'delta_rule'
NORM_EPS = 1e-6

backends.register(
    OP,
    {
        # Where it is installed: it tunes its kernels on the device at hand. It takes no
        # float32 and no narrow heads, and then these kernels are faster than torch's.
        'fla': fla,
        'triton': triton,
        'native': native,
        'shapes': shapes,
        'chunked': chunked,
        'reference': reference,
        # Ordinary operators, under the name that exporters ask for.
        'portable': chunked,
    },
)


def gated_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    *,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    begins: Tensor | None = None,
    qk_l2norm: bool = False,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Recurrence of Gated DeltaNet, arXiv:2412.06464.

    The state of a head is a matrix, :math:`K \times V`. Each step erases the value
    that its key recalls, in the proportion :math:`\beta`, and writes its own value:

    .. math::
        S_t = e^{g_t} (I - \beta_t k_t k_t^\top) S_{t-1} + \beta_t k_t v_t^\top, \qquad
        y_t = s\, S_t^\top q_t

    with ``g`` and ``beta`` as given: the caller is responsible for projections,
    activations and a mask for padding. A step with :math:`g_t = 0` and
    :math:`\beta_t = 0` does not change the state. :math:`g_t = -\infty`, or any decay
    too strong for its dtype, clears it, forward and backward. Keys should have length
    1 (``qk_l2norm``). Then :math:`\beta` up to 1 erases, :math:`\beta` up to 2 also
    reverses (``allow_neg_eigval`` of flash-linear-attention), and the state stays
    bounded.

    Half precision inputs, also under autocast, are computed in float32. The kernels
    for GPUs multiply them in half precision (``fla``) or TF32 (``triton``) and keep the
    state in float32. Any strides
    and an empty batch are accepted.

    Args:
        q (Tensor): Queries ``[B, L, G, K]``, where head g serves the heads
            ``g * H / G`` to ``(g + 1) * H / G`` of ``v``.
        k (Tensor): Keys ``[B, L, G, K]``.
        v (Tensor): Values ``[B, L, H, V]``.
        g (Tensor): Log decays ``[B, L, H]``, not positive for a stable recurrence.
        beta (Tensor): Strengths ``[B, L, H]``.
        scale (float, optional): s, :math:`1 / \sqrt{K}` by default.
        initial_state (Tensor, optional): ``[B, H, K, V]``, zero by default.
        begins (Tensor, optional): Bool ``[B, L]``, True at the first step of each
            further sequence in a row, which does not see anything before it.
        qk_l2norm (bool): Whether to divide queries and keys by their lengths,
            :math:`x / \sqrt{|x|^2 + 10^{-6}}`, in the dtype of the computation.
        backend (str, optional): See :mod:`mmtransmamba.ops.backends`.

    Returns:
        tuple[Tensor, Tensor]: Output ``[B, L, H, V]`` in the dtype of ``v`` and the
        last state ``[B, H, K, V]`` in float32 (float64 for float64 inputs). Both are
        differentiable.

    Raises:
        ValueError: If a shape, dtype or device does not fit, or for an unknown
            backend or one that cannot take these tensors.
        RuntimeError: If the backend asked for is not available.
    """
    named = dict(v=v, q=q, k=k, g=g, beta=beta, initial_state=initial_state)
    return _scan(named, '[B, L, H]', scale, begins, qk_l2norm, backend)


def kda(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    *,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    begins: Tensor | None = None,
    qk_l2norm: bool = False,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Recurrence of Kimi Delta Attention, arXiv:2510.26692.

    Like :func:`gated_delta_rule`, with a separate decay for every key channel:

    .. math::
        S_t = (I - \beta_t k_t k_t^\top) \, \mathrm{diag}(e^{g_t}) S_{t-1}
              + \beta_t k_t v_t^\top, \qquad y_t = s\, S_t^\top q_t

    Args:
        q (Tensor): Queries ``[B, L, G, K]``.
        k (Tensor): Keys ``[B, L, G, K]``.
        v (Tensor): Values ``[B, L, H, V]``.
        g (Tensor): Log decays ``[B, L, H, K]``.
        beta (Tensor): Strengths ``[B, L, H]``.
        scale (float, optional): As for :func:`gated_delta_rule`.
        initial_state (Tensor, optional): As for :func:`gated_delta_rule`.
        begins (Tensor, optional): As for :func:`gated_delta_rule`.
        qk_l2norm (bool): As for :func:`gated_delta_rule`.
        backend (str, optional): As for :func:`gated_delta_rule`.

    Returns:
        tuple[Tensor, Tensor]: As for :func:`gated_delta_rule`.

    Raises:
        ValueError: As for :func:`gated_delta_rule`.
        RuntimeError: As for :func:`gated_delta_rule`.
    """
    named = dict(v=v, q=q, k=k, g=g, beta=beta, initial_state=initial_state)
    return _scan(named, '[B, L, H, K]', scale, begins, qk_l2norm, backend)


def gated_delta_rule_step(
    state: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    *,
    scale: float | None = None,
    qk_l2norm: bool = False,
) -> tuple[Tensor, Tensor]:
    """One step of :func:`gated_delta_rule`, for decoding token by token.

    Plain torch and functional: ``state`` is not changed. Half precision inputs are
    computed in float32.

    Args:
        state (Tensor): State before the step, ``[B, H, K, V]``.
        q (Tensor): Queries ``[B, G, K]``.
        k (Tensor): Keys ``[B, G, K]``.
        v (Tensor): Values ``[B, H, V]``.
        g (Tensor): Log decays ``[B, H]``.
        beta (Tensor): Strengths ``[B, H]``.
        scale (float, optional): As for :func:`gated_delta_rule`.
        qk_l2norm (bool): As for :func:`gated_delta_rule`.

    Returns:
        tuple[Tensor, Tensor]: Output ``[B, H, V]`` in the dtype of ``v`` and the new
        state in the dtype of ``state``.

    Raises:
        ValueError: If a shape, dtype or device does not fit.
    """
    return _step(
        dict(v=v, q=q, k=k, g=g, beta=beta, state=state), '[B, H]', scale, qk_l2norm
    )


def kda_step(
    state: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    *,
    scale: float | None = None,
    qk_l2norm: bool = False,
) -> tuple[Tensor, Tensor]:
    """One step of :func:`kda`, for decoding token by token.

    Args:
        state (Tensor): As for :func:`gated_delta_rule_step`.
        q (Tensor): As for :func:`gated_delta_rule_step`.
        k (Tensor): As for :func:`gated_delta_rule_step`.
        v (Tensor): As for :func:`gated_delta_rule_step`.
        g (Tensor): Log decays ``[B, H, K]``.
        beta (Tensor): As for :func:`gated_delta_rule_step`.
        scale (float, optional): As for :func:`gated_delta_rule`.
        qk_l2norm (bool): As for :func:`gated_delta_rule`.

    Returns:
        tuple[Tensor, Tensor]: As for :func:`gated_delta_rule_step`.

    Raises:
        ValueError: If a shape, dtype or device does not fit.
    """
    return _step(
        dict(v=v, q=q, k=k, g=g, beta=beta, state=state), '[B, H, K]', scale, qk_l2norm
    )


def _scan(
    named: dict[str, Tensor | None],
    gate: str,
    scale: float | None,
    begins: Tensor | None,
    qk_l2norm: bool,
    backend: str | None,
) -> tuple[Tensor, Tensor]:
    compute = check_tensors(**named)
    check_scan(**named, gate=gate)
    v = named['v']
    if begins is not None:
        check_begins(begins, v)
    module = backends.resolve(OP, named, backend)
    if not getattr(module, 'TAKES_HALF_PRECISION', False):
        named = upcast(named, compute)
    options = {}
    if begins is not None and getattr(module, 'TAKES_BEGINS', False):
        options['begins'] = begins
    elif begins is not None:
        named['g'] = _forget(named['g'], begins)
    named['q'], named['k'] = _prepared(named['q'], named['k'], compute, qk_l2norm)
    y, last_state = module.scan(**named, scale=_scale(scale, named['q']), **options)
    return y.to(v.dtype), last_state.to(compute)


def _step(
    named: dict[str, Tensor], gate: str, scale: float | None, qk_l2norm: bool
) -> tuple[Tensor, Tensor]:
    compute = check_tensors(**named)
    check_step(**named, gate=gate)
    v, state = named['v'], named['state']
    named = upcast(named, compute)
    q, k = _prepared(named['q'], named['k'], compute, qk_l2norm)
    y, new_state = step(
        named['state'], q, k, named['v'], named['g'], named['beta'], _scale(scale, q)
    )
    return y.to(v.dtype), new_state.to(state.dtype)


def _prepared(
    q: Tensor, k: Tensor, compute: torch.dtype, qk_l2norm: bool
) -> tuple[Tensor, Tensor]:
    if not qk_l2norm:
        return q, k
    q, k = (x.to(compute) for x in (q, k))
    return tuple(
        x * torch.rsqrt(x.square().sum(-1, keepdim=True) + NORM_EPS) for x in (q, k)
    )


def _scale(scale: float | None, q: Tensor) -> float:
    return q.shape[-1] ** -0.5 if scale is None else float(scale)


def _forget(g: Tensor, begins: Tensor) -> Tensor:
    """Log decays that clear the state where a sequence begins."""
    begins = begins[(...,) + (None,) * (g.dim() - 2)]
    return g.masked_fill(begins, torch.finfo(g.dtype).min)
