"""The public function: check the arguments, choose a backend."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import backends
from . import reference, triton

OP = 'gated_norm'
ACTIVATIONS = ('silu', 'sigmoid')

backends.register(OP, {'triton': triton, 'reference': reference})


def gated_norm(
    y: Tensor,
    z: Tensor | None,
    weight: Tensor,
    *,
    group: int,
    eps: float,
    gate_first: bool = False,
    activation: str = 'silu',
    dtype: torch.dtype | None = None,
) -> Tensor:
    r"""Normalise groups of channels by their root mean square, with a gate.

    .. math::
        t = y \sigma(z), \quad
        \frac{w\, t}{\sqrt{\mathrm{mean}(t^2) + \epsilon}}
        \qquad\text{or}\qquad
        \frac{w\, y}{\sqrt{\mathrm{mean}(y^2) + \epsilon}}\, \sigma(z)

    with the gate before the norm (Mamba-2) or after it (mmMamba, Gated DeltaNet). On a
    GPU, forward and backward pass are one kernel each, which reads every operand once.
    Half precision is computed in float32.

    Args:
        y: ``[..., D]``.
        z: Gate before its activation, ``[..., D]``; None for no gate.
        weight: ``[D]``.
        group: Channels that are normalised together: D for all, the size of a head, or
            any other divisor of D.
        eps: Added to the mean square.
        gate_first: Whether the gate comes before the norm.
        activation: ``'silu'`` or ``'sigmoid'``.
        dtype: Of the result; by default float32, or float64 for float64.

    Returns:
        ``[..., D]``. Differentiable once; twice on the reference.

    Raises:
        ValueError: A shape does not fit, or the activation is unknown.
    """
    channels = y.shape[-1]
    if weight.shape != (channels,) or (z is not None and z.shape != y.shape):
        raise ValueError(
            f'gated_norm: y has shape {list(y.shape)}, z '
            f'{None if z is None else list(z.shape)} and weight {list(weight.shape)}; '
            'accepted: [..., D], the same or None, and [D].'
        )
    if group < 1 or channels % group:
        raise ValueError(
            f'gated_norm: group={group} must divide the {channels} channels.'
        )
    if activation not in ACTIVATIONS:
        raise ValueError(
            f'gated_norm: activation={activation!r} must be one of '
            f'{", ".join(map(repr, ACTIVATIONS))}.'
        )
    if dtype is None:
        dtype = torch.promote_types(y.dtype, torch.float32)
    # The length of a group is all that a backend needs to know besides the tensors.
    parts = y.unflatten(-1, (-1, group))
    module = backends.resolve_known(OP, dict(y=y, z=z, weight=weight, group=parts))
    return module.normalize(y, z, weight, group, eps, gate_first, activation, dtype)
