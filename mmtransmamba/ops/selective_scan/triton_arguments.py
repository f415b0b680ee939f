"""Arguments of the selective scan's Triton kernels.

Shape suffixes: B batch, K directions, D channels, G groups of channels, N states,
L steps.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import triton_plan as plan

_LOG2_E = 1.4426950408889634


class Scan(NamedTuple):
    """Arguments of the operator, see ``operator_form``."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    delta_bias: Tensor | None
    order: Tensor | None
    tap_index: Tensor | None
    permute_params: bool
    delta_softplus: bool

    @property
    def sizes(self) -> tuple[int, int, int, int, int, int]:
        """B, K, D, L, G, N."""
        B, _, D, L = self.u.shape
        K = 1 if self.order is None else self.order.shape[0]
        return B, K, D, L, self.B.shape[2], self.A.shape[2]

    def shares_decays(self) -> bool:
        """Whether one exponential serves all directions."""
        K = 1 if self.order is None else self.order.shape[0]
        states = 1 << (self.A.shape[2] - 1).bit_length()
        return (
            K > 1
            and not self.permute_params
            and K * states <= 4 * plan.STATES_IN_REGISTERS
            and self.delta.shape[1] == 1
            and all(
                x is None or x.shape[0] == 1 for x in (self.A, self.D, self.delta_bias)
            )
        )


def shared_arguments(scan: Scan) -> dict[str, Any]:
    """Tensors and strides that both kernels take, by argument name."""
    u, delta, z = (
        None if x is None else channels_last(x) for x in (scan.u, scan.delta, scan.z)
    )
    # The product may overflow, and a zero step size times infinity gives NaN.
    rate = scan.A.transpose(1, 2) * _LOG2_E
    rate = rate.clamp(min=torch.finfo(rate.dtype).min).contiguous()
    order = None if scan.order is None else scan.order.contiguous()

    def given(x: Tensor | None) -> Tensor:
        """A tensor, or a dummy: kernels need pointers even for absent operands."""
        return rate if x is None else x

    def step(x: Tensor | None, dim: int) -> int:
        """Stride over the directions, 0 where they share the operand."""
        return 0 if x is None or x.shape[dim] == 1 else x.stride(dim)

    skip, bias = (
        None if x is None else x.contiguous() for x in (scan.D, scan.delta_bias)
    )
    return dict(
        U=u,
        DELTA=delta,
        A=rate,
        B=scan.B.contiguous(),
        C=scan.C.contiguous(),
        SKIP=given(skip),
        BIAS=given(bias),
        Z=given(z),
        ORDER=given(order),
        u_b=u.stride(0),
        u_k=step(u, 1),
        u_l=u.stride(3),
        delta_b=delta.stride(0),
        delta_k=step(delta, 1),
        delta_l=delta.stride(3),
        z_b=0 if z is None else z.stride(0),
        z_l=0 if z is None else z.stride(2),
        a_k=step(rate, 0),
        skip_k=step(skip, 0),
        bias_k=step(bias, 0),
    )


def geometry(scan: Scan, cut: plan.Division) -> dict[str, Any]:
    """Sizes and flags that both kernels take."""
    _, K, D, L, G, N = scan.sizes
    return dict(
        D=D,
        L=L,
        WIDTH=D // G,
        G=G,
        S=cut.segments,
        segment=cut.segment,
        N=N,
        NP=cut.states,
        J=cut.state_groups,
        K=K,
        ORDERED=scan.order is not None,
        PERMUTED=scan.order is not None and scan.permute_params,
        SOFTPLUS=scan.delta_softplus,
        HAS_BIAS=scan.delta_bias is not None,
        HAS_Z=scan.z is not None,
    )


def channels_last(x: Tensor) -> Tensor:
    """``[..., D, L]`` with unit stride over D, copied only if needed.

    Offsets within a sequence have 32 bits.
    """
    unit = x.stride(-2) == 1 or x.shape[-2] == 1
    if unit and 0 < x.stride(-1) and x.shape[-1] * x.stride(-1) < 2**31:
        return x
    return x.transpose(-1, -2).contiguous().transpose(-1, -2)


def count_blocks(channels: int, groups: int, block: int) -> int:
    return groups * -(-(channels // groups) // block)
