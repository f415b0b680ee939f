"""The public functions: check the arguments, choose a backend, keep dtypes."""

from torch import Tensor

from .. import backends
from ..arguments import check_tensors, finite_rates, upcast
from . import (
    mamba_ssm,
    native,
    portable,
    reference,
    shapes,
    step,
    triton,
    triton_step,
)
from .arguments import check_directions, check_scan, check_step

OP = 'selective_scan'
STEP = 'selective_scan_step'

backends.register(
    OP,
    {
        'triton': triton,
        'mamba_ssm': mamba_ssm,
        'native': native,
        'shapes': shapes,
        'reference': reference,
        'portable': portable,
    },
)
backends.register(STEP, {'triton': triton_step, 'portable': step})


def selective_scan_fn(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    *,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Selective state space scan (S6) of Mamba, arXiv:2312.00752, Algorithm 2.

    With :math:`\Delta` = ``delta`` (plus ``delta_bias``, through softplus if
    requested), per channel d and state n

    .. math::
        h_t = \exp(\Delta_t A) h_{t-1} + \Delta_t B_t u_t, \qquad
        y_t = (\sum_n C_{t,n} h_{t,n} + D u_t) \cdot \mathrm{SiLU}(z_t)

    from :math:`h_0 = 0`. Signature and meaning follow ``mamba_ssm``. Half precision
    inputs, also under autocast, are computed in float32, and the output is returned in
    the dtype of ``u``. Any strides and an empty batch are accepted.

    Args:
        u (Tensor): Input ``[B, D, L]``.
        delta (Tensor): Step sizes ``[B, D, L]``.
        A (Tensor): State matrix ``[D, N]``, real, negative for a stable scan. Minus
            infinity is replaced by the most negative finite number.
        B (Tensor): Input matrix ``[D, N]``, ``[B, N, L]`` or ``[B, G, N, L]``, where
            group g serves the channels ``g * D / G`` to ``(g + 1) * D / G``.
        C (Tensor): Output matrix, same shapes as ``B``.
        D (Tensor, optional): Skip ``[D]``.
        z (Tensor, optional): Gate ``[B, D, L]``.
        delta_bias (Tensor, optional): ``[D]``, added to ``delta``.
        delta_softplus (bool): Pass ``delta`` through softplus.
        return_last_state (bool): Return the state after the last step as well.
        backend (str, optional): See :mod:`mmtransmamba.ops.backends`.

    Returns:
        Tensor | tuple[Tensor, Tensor]: Output ``[B, D, L]`` in the dtype of ``u``,
        not always contiguous (the native backend stores channels last), and, if
        requested, the last state ``[B, D, N]`` in float32 (float64 for float64
        inputs). Both are differentiable.

    Raises:
        ValueError: If a shape, dtype or device does not fit, or for an unknown
            backend or one that cannot take these tensors.
        RuntimeError: If the backend asked for is not available.
    """
    named = dict(u=u, delta=delta, A=A, B=B, C=C, D=D, z=z, delta_bias=delta_bias)
    compute = check_tensors(**named)
    check_scan(**named)
    named['A'] = finite_rates(A)
    module = backends.resolve(OP, named, backend)
    if not getattr(module, 'TAKES_HALF_PRECISION', False):
        named = upcast(named, compute)
    y, last_state = module.scan(**named, delta_softplus=delta_softplus)
    y = y.to(u.dtype)
    return (y, last_state) if return_last_state else y


def selective_scan_directions(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    *,
    order: Tensor,
    permute_params: bool = True,
    tap_index: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    backend: str | None = None,
) -> tuple[Tensor, Tensor | None]:
    r"""Scan one set of tokens along K paths and merge the outputs by summation.

    Direction k is a :func:`selective_scan_fn` whose step t reads token
    ``order[k, t]`` of ``u``; its output of step t is added to token ``order[k, t]``
    of the result. Operands that all directions share have size 1 in the direction
    dimension.

    Args:
        u (Tensor): Input ``[B, 1 or K, D, L]`` in raster order.
        delta (Tensor): Step sizes ``[B, 1 or K, D, L]``.
        A (Tensor): State matrices ``[1 or K, D, N]``.
        B (Tensor): Input matrices ``[B, 1 or K, N, L]``.
        C (Tensor): Output matrices ``[B, 1 or K, N, L]``.
        D (Tensor, optional): Skip ``[1 or K, D]``, counted once per direction.
        order (Tensor): Int64 ``[K, L]``, each row a permutation of the tokens.
        permute_params (bool): True reads ``delta``, ``B`` and ``C`` at token
            ``order[k, t]`` like ``u`` (VMamba, Vim); False reads them at position t,
            so that only ``u`` is permuted (PlainMamba).
        tap_index (Tensor, optional): Int64 ``[K, M]``, steps of each direction
            whose own output is returned as well.
        delta_bias (Tensor, optional): ``[1 or K, D]``, added to ``delta``.
        delta_softplus (bool): Pass ``delta`` through softplus.
        backend (str, optional): See :mod:`mmtransmamba.ops.backends`.

    Returns:
        tuple[Tensor, Tensor | None]: Merged output ``[B, D, L]`` in raster order and
        the tapped outputs ``[B, K, D, M]`` (None without ``tap_index``), both in the
        dtype of ``u`` and differentiable.

    Raises:
        ValueError: If a shape, dtype, device or index does not fit, or for an
            unknown backend or one that cannot take these tensors.
        RuntimeError: If the backend asked for is not available.
    """
    named = dict(u=u, delta=delta, A=A, B=B, C=C, D=D, delta_bias=delta_bias)
    compute = check_tensors(**named)
    check_directions(**named, order=order, tap_index=tap_index)
    named['A'] = finite_rates(A)
    module = backends.resolve(OP, named, backend)
    if not getattr(module, 'TAKES_HALF_PRECISION', False):
        named = upcast(named, compute)
    y, taps = module.scan_directions(
        **named,
        order=order,
        permute_params=permute_params,
        tap_index=tap_index,
        delta_softplus=delta_softplus,
    )
    return y.to(u.dtype), None if taps is None else taps.to(u.dtype)


def selective_scan_step(
    state: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
) -> tuple[Tensor, Tensor]:
    """One step of :func:`selective_scan_fn`, for decoding token by token.

    Functional: ``state`` is not changed. Half precision inputs are computed in
    float32. On a GPU, where no gradient is required, it is one Triton kernel, which
    reads them as they are; otherwise plain torch.

    Args:
        state (Tensor): State before the step, ``[B, D, N]``.
        u (Tensor): Input ``[B, D]``.
        delta (Tensor): Step sizes ``[B, D]``.
        A (Tensor): As for :func:`selective_scan_fn`.
        B (Tensor): ``[B, N]`` or ``[B, G, N]``, where group g serves the channels
            ``g * D / G`` to ``(g + 1) * D / G``.
        C (Tensor): As ``B``.
        D (Tensor, optional): Skip ``[D]``.
        z (Tensor, optional): Gate ``[B, D]``.
        delta_bias (Tensor, optional): ``[D]``, added to ``delta``.
        delta_softplus (bool): Pass ``delta`` through softplus.

    Returns:
        tuple[Tensor, Tensor]: Output ``[B, D]`` in the dtype of ``u`` and the new
        state in the dtype of ``state``.

    Raises:
        ValueError: If a shape, dtype or device does not fit, or if Triton is asked for
            and a gradient is required.
    """
    named = dict(u=u, delta=delta, A=A, B=B, C=C, D=D, z=z, delta_bias=delta_bias)
    named['state'] = state
    compute = check_tensors(**named)
    check_step(**named)
    named['A'] = finite_rates(A)
    module = backends.resolve_known(STEP, named)
    if not getattr(module, 'TAKES_HALF_PRECISION', False):
        named = upcast(named, compute)
    y, new_state = module.step(named.pop('state'), *named.values(), delta_softplus)
    return y.to(u.dtype), new_state.to(state.dtype)
