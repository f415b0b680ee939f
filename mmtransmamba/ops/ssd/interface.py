"""The public functions: check the arguments, choose a backend, keep dtypes."""

from torch import Tensor

from .. import backends
from ..arguments import check_tensors, finite_rates, upcast
from . import (
    chunked,
    fla,
    mamba_ssm,
    native,
    reference,
    shapes,
    step,
    triton,
    triton_step,
)
from .arguments import check_scan, check_step

OP = 'ssd'
STEP = 'ssd_step'

backends.register(
    OP,
    {
        'triton': triton,
        'mamba_ssm': mamba_ssm,
        'fla': fla,
        'native': native,
        'shapes': shapes,
        'chunked': chunked,
        'reference': reference,
        # Ordinary operators, under the name that exporters ask for.
        'portable': chunked,
    },
)
backends.register(STEP, {'triton': triton_step, 'portable': step})


def ssd_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    *,
    initial_state: Tensor | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    r"""State space scan of Mamba-2 (SSD), arXiv:2405.21060.

    Head h has one scalar decay, and its state is a matrix, :math:`P \times N`:

    .. math::
        S_t = \exp(\Delta_t A) S_{t-1} + \Delta_t x_t B_t^\top, \qquad
        y_t = S_t C_t + D x_t

    with :math:`\Delta` = ``dt`` as given: the caller is responsible for bias, softplus
    and a mask for padding. A step with :math:`\Delta_t = 0` does not change the state.
    A decay too strong for its dtype is 0, forward and backward: a rate of minus
    infinity is replaced by the most negative finite number.

    Half precision inputs, also under autocast, are computed in float32. The kernels
    for GPUs multiply them in half precision and keep the state in float32. Any strides
    and an empty batch are accepted.

    Args:
        x (Tensor): Input ``[B, L, H, P]``.
        dt (Tensor): Step sizes ``[B, L, H]``.
        A (Tensor): Decay rates ``[H]``, negative for a stable scan.
        B (Tensor): Input vectors ``[B, L, G, N]``, where group g serves the heads
            ``g * H / G`` to ``(g + 1) * H / G``.
        C (Tensor): Output vectors ``[B, L, G, N]``.
        D (Tensor, optional): Skip ``[H]``.
        initial_state (Tensor, optional): ``[B, H, P, N]``, zero by default.
        backend (str, optional): See :mod:`mmtransmamba.ops.backends`.

    Returns:
        tuple[Tensor, Tensor]: Output ``[B, L, H, P]`` in the dtype of ``x`` and the
        last state ``[B, H, P, N]`` in float32 (float64 for float64 inputs). Both are
        differentiable.

    Raises:
        ValueError: If a shape, dtype or device does not fit, or for an unknown
            backend or one that cannot take these tensors.
        RuntimeError: If the backend asked for is not available.
    """
    named = dict(x=x, dt=dt, A=A, B=B, C=C, D=D, initial_state=initial_state)
    compute = check_tensors(**named)
    check_scan(**named)
    named['A'] = finite_rates(A)
    module = backends.resolve(OP, named, backend)
    if not getattr(module, 'TAKES_HALF_PRECISION', False):
        named = upcast(named, compute)
    y, last_state = module.scan(**named)
    return y.to(x.dtype), last_state.to(compute)


def ssd_step(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One step of :func:`ssd_scan`, for decoding token by token.

    Functional: ``state`` is not changed. Half precision inputs are computed in
    float32. On a GPU, where no gradient is required, it is one Triton kernel, which
    reads them as they are; otherwise plain torch.

    Args:
        state (Tensor): State before the step, ``[B, H, P, N]``.
        x (Tensor): Input ``[B, H, P]``.
        dt (Tensor): Step sizes ``[B, H]``.
        A (Tensor): Decay rates ``[H]``.
        B (Tensor): Input vectors ``[B, G, N]``.
        C (Tensor): Output vectors ``[B, G, N]``.
        D (Tensor, optional): Skip ``[H]``.

    Returns:
        tuple[Tensor, Tensor]: Output ``[B, H, P]`` in the dtype of ``x`` and the
        new state in the dtype of ``state``.

    Raises:
        ValueError: If a shape, dtype or device does not fit, or if Triton is asked for
            and a gradient is required.
    """
    named = dict(x=x, dt=dt, A=A, B=B, C=C, D=D, state=state)
    compute = check_tensors(**named)
    check_step(**named)
    named['A'] = finite_rates(A)
    module = backends.resolve_known(STEP, named)
    if not getattr(module, 'TAKES_HALF_PRECISION', False):
        named = upcast(named, compute)
    y, new_state = module.step(named.pop('state'), *named.values())
    return y.to(x.dtype), new_state.to(state.dtype)
