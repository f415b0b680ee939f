"""What the scans cost, for counters of FLOPs.

:func:`torch.utils.flop_counter.FlopCounterMode` takes :data:`FORMULAS` as its
``custom_mapping``. Its own formulas count a multiplication and an addition as two;
these count as the authors of the models do and are not to be halved.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from .selective_scan import native  # noqa: F401  (it defines the op counted here)


def selective_scan_flops(
    batch: int,
    directions: int,
    channels: int,
    states: int,
    length: int,
    with_D: bool = True,
    with_z: bool = False,
) -> int:
    """``9 B K L D N``, and ``B K L D`` for the skip and ``B L D`` for the gate.

    The authors of Mamba and VMamba count nine operations per step and state: step
    size, decay and drive, the recurrence, and the product with C.
    """
    per_step = batch * length * channels
    flops = 9 * per_step * directions * states
    return flops + with_D * directions * per_step + with_z * per_step


def _selective_scan(
    u: Sequence[int],
    delta: Sequence[int],
    A: Sequence[int],
    B: Sequence[int],
    C: Sequence[int],
    D: Sequence[int] | None,
    z: Sequence[int] | None,
    delta_bias: Sequence[int] | None,
    order: Sequence[int] | None,
    *_: Any,
    **__: Any,
) -> int:
    batch, _, channels, length = u
    return selective_scan_flops(
        batch,
        1 if order is None else order[0],
        channels,
        A[-1],
        length,
        D is not None,
        z is not None,
    )


FORMULAS: dict[Any, Callable[..., int]] = {
    torch.ops.mmtransmamba.selective_scan: _selective_scan
}
