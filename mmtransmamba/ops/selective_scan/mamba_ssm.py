"""The selective scan of the ``mamba_ssm`` package, when it is installed."""

import functools
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..arguments import in_float64
from . import reference
from .reference import directions_by_gather

MAX_STATES = 256


@functools.cache
def _selective_scan_fn() -> Callable | ImportError:
    try:
        from mamba_ssm.ops.selective_scan_interface import (
            selective_scan_cuda,
            selective_scan_fn,
        )
    except ImportError as error:
        return error
    if selective_scan_cuda is None:
        return ImportError(
            'mamba_ssm was built without its CUDA selective scan; reinstall it with '
            'MAMBA_KEEP_CUDA_BUILD=TRUE in the environment'
        )
    return selective_scan_fn


def unavailable() -> str | None:
    """Why the package cannot be used, or None."""
    found = _selective_scan_fn()
    return str(found) if isinstance(found, ImportError) else None


def refuses(tensors: Mapping[str, Tensor | None]) -> str | None:
    """Why these tensors need another backend, or None."""
    u, A = tensors['u'], tensors['A']
    if u.device.type != 'cuda':
        return f'it runs on CUDA, u is on {u.device}'
    name = in_float64(tensors)
    if name is not None:
        return f'it computes in float32, {name} is in {tensors[name].dtype}'
    if u.numel() == 0:
        return 'it takes no empty batch'
    if A.shape[-1] > MAX_STATES:
        return f'it takes at most {MAX_STATES} states, A has {A.shape[-1]}'
    for name in 'BC':
        if tensors[name].ndim == 2:
            return f'it is mostly built for matrices that vary in time, {name} does not'
    return None


class _LastState(torch.autograd.Function):
    """The last state, with the gradient that the package does not compute.

    The package's kernel silently omits it from the backward pass. Here the reference
    computes it when it is needed.
    """

    @staticmethod
    def forward(ctx, last_state: Tensor, delta_softplus: bool, *operands) -> Tensor:
        ctx.delta_softplus = delta_softplus
        ctx.save_for_backward(*operands)
        return last_state.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        operands = [None if t is None else t.detach() for t in saved]
        wanted = [
            t.requires_grad_()
            for t, needed in zip(operands, ctx.needs_input_grad[2:], strict=True)
            if needed
        ]
        u, delta, A, B, C, delta_bias = operands
        with torch.enable_grad():
            _, last_state = reference.scan(
                u, delta, A, B, C, None, None, delta_bias, ctx.delta_softplus
            )
        found = iter(
            torch.autograd.grad(last_state, wanted, gradient, allow_unused=True)
        )
        needed = ctx.needs_input_grad[2:]
        return (None, None, *(next(found) if need else None for need in needed))


def scan(
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
    """See ``selective_scan_fn``; returns the output and the last state."""
    y, last_state = _selective_scan_fn()(
        u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state=True
    )
    operands = (u, delta, A, B, C, delta_bias)
    last_state = _LastState.apply(last_state.detach(), delta_softplus, *operands)
    return y, last_state


scan_directions = functools.partial(directions_by_gather, scan)
"""Scan permuted copies one by one; see ``selective_scan_directions``."""
