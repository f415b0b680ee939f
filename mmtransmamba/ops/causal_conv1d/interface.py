"""The public function: check the arguments, choose a backend, keep dtypes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import backends
from . import portable, reference, triton

OP = 'causal_conv1d'

backends.register(OP, {'triton': triton, 'reference': reference, 'portable': portable})


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    reverse: Sequence[bool],
    *,
    silu: bool = False,
) -> Tensor:
    r"""Convolve every channel with a short causal kernel.

    .. math:: y_{k,t} = b_k + \sum_{j=0}^{W-1} w_{k,W-1-j} \, x_{t-j}

    with zeros before the first step. The last tap applies to the current step, as in
    ``causal_conv1d`` and in Mamba's ``conv1d``. A reversed direction sees only the
    current and later steps, :math:`x_{t+j}`. This equals flipping the sequence,
    convolving and flipping back, without moving anything in memory.

    Channels are last, the layout that linear layers produce and that suits the native
    scan best. A depthwise kernel of four taps is a sum of four shifted products. In
    this form, with a hand-written gradient, forward and backward take a third of the
    time of ``F.conv1d`` on a CPU, whose weight gradient is slow.
    On a GPU it is one Triton kernel for all directions. Half precision inputs are
    computed in float32.

    Args:
        x: ``[B, L, D]``.
        weight: Kernels of K directions, ``[K, D, W]``.
        bias: ``[K, D]``, or None.
        reverse: For each direction, whether it runs from the last step to the first.
        silu: Apply SiLU to the result.

    Returns:
        ``[K, B, L, D]`` in the dtype of ``x``, contiguous. Twice differentiable, but
        once only on Triton.

    Raises:
        ValueError: A shape does not fit.
    """
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
    dtype = torch.promote_types(x.dtype, torch.float32)
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
    return y.to(x.dtype)
