"""The public function: check the arguments, choose a backend, keep dtypes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import backends
from ..arguments import check_tensors
from . import native, portable, reference, triton

OP = 'causal_conv1d'

backends.register(
    OP,
    {
        'triton': triton,
        'native': native,
        'reference': reference,
        'portable': portable,
    },
)


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    reverse: Sequence[bool],
    *,
    silu: bool = False,
    state: Tensor | None = None,
    return_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Convolve every channel with a short causal kernel.

    .. math:: y_{k,t} = b_k + \sum_{j=0}^{W-1} w_{k,W-1-j} \, x_{t-j}

    with zeros before the first step, or with the steps of a given state. The last tap
    applies to the current step, as in ``causal_conv1d`` and in Mamba's ``conv1d``. A
    reversed direction sees only the current and later steps, :math:`x_{t+j}`. This
    equals flipping the sequence, convolving and flipping back, without moving anything
    in memory.

    Channels are last, the layout that linear layers produce and that suits the native
    scan best. On a CPU it is one compiled kernel for all directions, on a GPU one in
    Triton. The reference is a sum of shifted products with a hand-written gradient.
    Half precision inputs are computed in float32.

    Args:
        x: ``[B, L, D]``.
        weight: Kernels of K directions, ``[K, D, W]``.
        bias: ``[K, D]``, or None.
        reverse: For each direction, whether it runs from the last step to the first.
        silu: Apply SiLU to the result.
        state: The W - 1 inputs before the first step, ``[B, W - 1, D]``, to continue a
            sequence, also by a single step. Only without reversed directions.
        return_state: Return also the state after the last step, a view where possible.

    Returns:
        ``[K, B, L, D]`` in the dtype of ``x``, contiguous without a state.
        Differentiable once; twice on the reference. With ``return_state``, also
        ``[B, W - 1, D]`` in the dtype of ``x``.

    Raises:
        ValueError: A shape, dtype or device does not fit, or there is a state and a
            reversed direction.
    """
    check_tensors(x=x, state=state)  # the state is taken in the dtype of x
    dtype = check_tensors(x=x, weight=weight, bias=bias)
    K, D = len(reverse), x.shape[-1]
    if x.ndim != 3 or weight.ndim != 3 or weight.shape[:2] != (K, D):
        raise ValueError(
            f'causal_conv1d: x has shape {list(x.shape)} and weight '
            f'{list(weight.shape)}; accepted: [B, L, D] and [K, D, W] with '
            f'K = {K} directions (reverse).'
        )
    if bias is None:
        bias = weight.new_zeros(K, D)
    elif bias.shape != (K, D):
        raise ValueError(
            f'causal_conv1d: bias has shape {list(bias.shape)}; accepted: '
            f'[K, D] = [{K}, {D}].'
        )
    before = weight.shape[-1] - 1
    if state is not None or return_state:
        if any(reverse):
            raise ValueError(
                'causal_conv1d: a state is of a sequence that goes on at its end; '
                'accepted with it: no reversed directions (reverse).'
            )
        if state is None:
            x = F.pad(x, (0, 0, before, 0))
        elif state.shape != (x.shape[0], before, D):
            raise ValueError(
                f'causal_conv1d: state has shape {list(state.shape)}; accepted: '
                f'[B, W - 1, D] = {[x.shape[0], before, D]}.'
            )
        else:
            x = torch.cat((state.to(x.dtype), x), dim=1)
    else:
        before = 0
    module = backends.resolve_known(OP, dict(x=x, weight=weight, bias=bias))
    # Taps first and channels contiguous, so that every product is vectorised.
    taps = weight.to(dtype).permute(2, 0, 1).flip(0).contiguous()
    whole = getattr(module, 'TAKES_HALF_PRECISION', False)
    y = module.convolve(
        x if whole else x.to(dtype),
        taps,
        bias.to(dtype),
        [int(r) for r in reverse],
        silu,
    )
    y = y.to(x.dtype)
    if before:
        y = y[:, :, before:]
    return (y, x[:, x.shape[1] - before :]) if return_state else y
