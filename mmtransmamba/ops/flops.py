"""Operation counts of the scans, for FLOP counters.

:func:`torch.utils.flop_counter.FlopCounterMode` takes :data:`FORMULAS` as its
``custom_mapping``. Its own formulas count a multiplication and an addition as two
operations; these follow the counts of the models' authors and must not be halved.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

# These modules define the ops counted here.
from .delta_rule import native as delta_rule_native  # noqa: F401
from .delta_rule import triton as delta_rule_triton  # noqa: F401
from .selective_scan import native, triton  # noqa: F401
from .ssd import native as ssd_native  # noqa: F401
from .ssd import triton as ssd_triton  # noqa: F401
from .wkv import native as wkv_native  # noqa: F401
from .wkv import triton as wkv_triton  # noqa: F401


def selective_scan_flops(
    batch: int,
    directions: int,
    channels: int,
    states: int,
    length: int,
    with_D: bool = True,
    with_z: bool = False,
) -> int:
    """``9 B K L D N``, plus ``B K L D`` for the skip and ``B L D`` for the gate.

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


def ssd_flops(
    batch: int,
    length: int,
    heads: int,
    width: int,
    states: int,
    with_D: bool = True,
) -> int:
    """``5 B L H P N``, plus ``B L H P`` for the skip.

    Per step and entry of the state: the product of input and ``B``, the decay and
    the sum of the update, and product and sum of the read-out. The chunked form
    performs other operations, but uses the same count so that scans are comparable.
    """
    per_step = batch * length * heads * width
    return 5 * per_step * states + with_D * per_step


def _ssd(
    x: Sequence[int],
    dt: Sequence[int],
    A: Sequence[int],
    B: Sequence[int],
    C: Sequence[int],
    D: Sequence[int] | None,
    *_: Any,
    **__: Any,
) -> int:
    return ssd_flops(*x, B[-1], D is not None)


def delta_rule_flops(
    batch: int, length: int, heads: int, keys: int, values: int
) -> int:
    """``7 B L H K V``.

    Per step and entry of the state: the decay, then product and sum of the recalled
    value, of the update, and of the read-out. The chunked form performs other
    operations, but uses the same count so that scans are comparable.
    """
    return 7 * batch * length * heads * keys * values


def _delta_rule(
    q: Sequence[int], k: Sequence[int], v: Sequence[int], *_: Any, **__: Any
) -> int:
    return delta_rule_flops(*v[:3], q[-1], v[-1])


def bi_wkv_flops(batch: int, length: int, channels: int) -> int:
    """``21 B T C``.

    Per direction, token and channel: two exponentials, the value times its weight,
    and a multiplication and an addition for each of the two sums. Then both sums of
    three parts, the exponential and product of the token itself, and the division.
    """
    return 21 * batch * length * channels


def _bi_wkv(
    w: Sequence[int], u: Sequence[int], k: Sequence[int], *_: Any, **__: Any
) -> int:
    return bi_wkv_flops(*k)


def bi_wkv6_flops(batch: int, length: int, channels: int, heads: int) -> int:
    """``10 B T C D`` with heads of width D.

    Per direction, token and entry of the state: the product of key and value, the
    decay and the sum of the update, and product and sum of the read-out.
    """
    return 10 * batch * length * channels * (channels // heads)


def _bi_wkv6_triton(
    r: Sequence[int],
    k: Sequence[int],
    v: Sequence[int],
    decay: Sequence[int],
    u: Sequence[int],
    *_: Any,
    **__: Any,
) -> int:
    return bi_wkv6_flops(*k, u[0])


def _bi_wkv6(
    r: Sequence[int],
    k: Sequence[int],
    v: Sequence[int],
    decay: Sequence[int],
    heads: int,
    *_: Any,
    **__: Any,
) -> int:
    return bi_wkv6_flops(*k, heads)


FORMULAS: dict[Any, Callable[..., int]] = {
    torch.ops.mmtransmamba.selective_scan: _selective_scan,
    torch.ops.mmtransmamba.selective_scan_triton: _selective_scan,
    torch.ops.mmtransmamba.ssd: _ssd,
    torch.ops.mmtransmamba.ssd_triton: _ssd,
    torch.ops.mmtransmamba.delta_rule: _delta_rule,
    torch.ops.mmtransmamba.delta_rule_triton: _delta_rule,
    torch.ops.mmtransmamba.bi_wkv: _bi_wkv,
    torch.ops.mmtransmamba.bi_wkv_triton: _bi_wkv,
    torch.ops.mmtransmamba.bi_wkv6: _bi_wkv6,
    torch.ops.mmtransmamba.bi_wkv6_triton: _bi_wkv6_triton,
}
