"""One step of the selective scan in one Triton kernel, for decoding.

See :mod:`mmtransmamba.ops.triton_runtime` for where it runs. Operands and states are
read and written in their own dtype and computed in float32. There is no gradient.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..triton_runtime import refuses_gradient, refuses_place_or_dtype, unavailable

__all__ = ['refuses', 'step', 'unavailable']

TAKES_HALF_PRECISION = True


def refuses(tensors: Mapping[str, Tensor | None]) -> str | None:
    """Why these tensors need another backend, or None."""
    return refuses_place_or_dtype('u', tensors) or refuses_gradient(tensors)


def step(
    state: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> tuple[Tensor, Tensor]:
    """See ``selective_scan_step``."""
    # One group of all channels is the general case.
    B, C = (x[:, None] if x.dim() == 2 else x for x in (B, C))
    return _step_op(state, u, delta, A, B, C, D, z, delta_bias, delta_softplus)


def _empty_outputs(state: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    return u.new_empty(u.shape), state.new_empty(state.shape)


@torch.library.custom_op(
    'mmtransmamba::selective_scan_step_triton',
    mutates_args=(),
    schema=(
        '(Tensor state, Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, '
        'Tensor? D, Tensor? z, Tensor? delta_bias, bool delta_softplus) '
        '-> (Tensor, Tensor)'
    ),
)
def _step_op(
    state: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> tuple[Tensor, Tensor]:
    """Output and new state."""
    from .triton_step_kernel import launch

    outputs = _empty_outputs(state, u)
    if u.numel():
        operands = state, u, delta, A, B, C, D, z, delta_bias
        launch(*operands, delta_softplus, *outputs)
    return outputs


@_step_op.register_fake
def _(
    state: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> tuple[Tensor, Tensor]:
    return _empty_outputs(state, u)
