"""Linear recurrences over many steps, in a form that can be exported.

A Python loop is recorded step by step: hundreds of operators for one scan, valid for
one length. Here the loop itself is recorded: ``torch.export`` gets a ``scan``
operator, which the ONNX exporter turns into ONNX's ``Scan``, and ``torch.jit.trace``
gets a TorchScript loop. Otherwise the loop runs in Python, with gradients.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mmtransmamba.ops.untraced import is_exporting


def outer_products(
    state: Tensor,
    log_decay: Tensor,
    rate: Tensor,
    left: Tensor,
    right: Tensor,
    read: Tensor,
) -> tuple[Tensor, Tensor]:
    r"""Matrix states that decay and receive one outer product in every step.

    .. math:: S_t = e^{d_t \cdot r} \odot S_{t-1} + l_t \, x_t^\top, \qquad
              y_t = c_t^\top S_t

    All operands share their leading dimensions ``...`` or have size 1 there.

    Args:
        state: First state ``[..., P, Q]``, contiguous and of the full shape.
        log_decay: d, ``[L, ..., 1 or P, 1 or Q]``.
        rate: r, ``[..., 1 or P, 1 or Q]``.
        left: l, ``[L, ..., P, 1]``.
        right: x, ``[L, ..., 1, Q]``.
        read: c, ``[L, ..., 1, P]``.

    Returns:
        Outputs y ``[L, ..., 1, Q]`` and the last state ``[..., P, Q]``.
    """
    # A recorded loop requires a constant state layout; and every step is read whole.
    log_decay, rate, left, right, read = (
        x.contiguous() for x in (log_decay, rate, left, right, read)
    )
    if is_exporting():

        def body(
            state: Tensor,
            log_decay: Tensor,
            left: Tensor,
            right: Tensor,
            read: Tensor,
            rate: Tensor,
        ) -> tuple[Tensor, Tensor]:
            state = _outer_product(state, log_decay, rate, left, right)
            return state, read @ state

        last, y = _scan(body, [state], [log_decay, left, right, read], [rate])
        return y, last
    loop = _form_of(_outer_products)
    return loop(state, log_decay, rate, left, right, read)


def weighted_sums(decay: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""For every step, sums over the previous steps with decaying weights.

    .. math:: a_t = \sum_{i < t} e^{k_i - (t - 1 - i) w} v_i

    computed relative to the largest weight, so that nothing overflows.

    Args:
        decay: w, broadcast to a step of ``k``.
        k: Logarithms of the weights ``[L, ...]``.
        v: Values ``[L, M, ...]``, M sums with the same weights.

    Returns:
        ``s`` and ``n``, both ``[L, ...]``, and the sums ``[L, M, ...]``, which must
        still be multiplied by ``exp(s - n w)``; s is -inf at the first step.
    """
    k, v = k.contiguous(), v.contiguous()
    scale = torch.full_like(k[0], -torch.inf)
    steps = torch.zeros_like(k[0])
    sums = torch.zeros_like(v[0])
    if is_exporting():

        def body(
            scale: Tensor,
            steps: Tensor,
            sums: Tensor,
            k: Tensor,
            v: Tensor,
            decay: Tensor,
        ) -> tuple[Tensor, ...]:
            # The outputs of a step must not alias its inputs.
            before = scale.clone(), steps.clone(), sums.clone()
            return *_weighted_sum(scale, steps, sums, decay, k, v), *before

        found = _scan(body, [scale, steps, sums], [k, v], [decay])
        return found[3], found[4], found[5]
    return _form_of(_weighted_sums)(scale, steps, sums, decay, k, v)


def _outer_product(
    state: Tensor, log_decay: Tensor, rate: Tensor, left: Tensor, right: Tensor
) -> Tensor:
    return torch.exp(log_decay * rate) * state + left * right


def _outer_products(
    state: Tensor,
    log_decay: Tensor,
    rate: Tensor,
    left: Tensor,
    right: Tensor,
    read: Tensor,
) -> tuple[Tensor, Tensor]:
    outputs = []
    for t in range(left.size(0)):
        state = _outer_product(state, log_decay[t], rate, left[t], right[t])
        outputs.append(read[t] @ state)
    return torch.stack(outputs), state


def _weighted_sum(
    scale: Tensor, steps: Tensor, sums: Tensor, decay: Tensor, k: Tensor, v: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    steps = steps + 1
    gap = (scale - k) - steps * decay
    leads, zero = gap > 0, torch.zeros_like(gap)
    # The factors of the old and the new term; the larger one is 1.
    older = torch.exp(torch.where(leads, zero, gap))
    newer = torch.exp(torch.where(leads, -gap, zero))
    return (
        torch.where(leads, scale, k),
        torch.where(leads, steps, zero),
        older * sums + newer * v,
    )


def _weighted_sums(
    scale: Tensor, steps: Tensor, sums: Tensor, decay: Tensor, k: Tensor, v: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    scales, all_steps, all_sums = [], [], []
    for t in range(k.size(0)):
        scales.append(scale)
        all_steps.append(steps)
        all_sums.append(sums)
        scale, steps, sums = _weighted_sum(scale, steps, sums, decay, k[t], v[t])
    return torch.stack(scales), torch.stack(all_steps), torch.stack(all_sums)


def _form_of(loop: Callable[..., Any]) -> Callable[..., Any]:
    """The loop itself, or its compiled form while ``torch.jit.trace`` records."""
    return _scripted(loop) if torch.jit.is_tracing() else loop


@functools.cache
def _scripted(loop: Callable[..., Any]) -> Callable[..., Any]:
    with warnings.catch_warnings():
        # TorchScript is deprecated, but the caller requested it.
        warnings.simplefilter('ignore')
        return torch.jit.script(loop)


def _scan(
    body: Callable[..., tuple[Tensor, ...]],
    state: Sequence[Tensor],
    steps: Sequence[Tensor],
    constants: Sequence[Tensor],
) -> list[Tensor]:
    """torch's own scan over the first dimension.

    The operator itself is called, because the public function would first compile
    every body, for seconds each.

    Args:
        body: Function of the tensors of ``state``, one step of ``steps``, and
            ``constants``; returns the new state and the output of the step.

    Returns:
        The last state and the outputs of the steps.
    """
    from torch._higher_order_ops.scan import scan_op

    return list(scan_op(body, list(state), list(steps), tuple(constants)))
