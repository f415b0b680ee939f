"""One step of SSD in one Triton kernel, for decoding.

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
    return refuses_place_or_dtype('x', tensors) or refuses_gradient(tensors)


def step(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """See ``ssd_step``."""
    return _step_op(state, x, dt, A, B, C, D)


def _empty_outputs(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), state.new_empty(state.shape)


@torch.library.custom_op(
    'mmtransmamba::ssd_step_triton',
    mutates_args=(),
    schema=(
        '(Tensor state, Tensor x, Tensor dt, Tensor A, Tensor B, Tensor C, Tensor? D) '
        '-> (Tensor, Tensor)'
    ),
)
def _step_op(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Output and new state."""
    from .triton_step_kernel import launch

    outputs = _empty_outputs(state, x)
    if x.numel():
        launch(state, x, dt, A, B, C, D, *outputs)
    return outputs


@_step_op.register_fake
def _(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
) -> tuple[Tensor, Tensor]:
    return _empty_outputs(state, x)
