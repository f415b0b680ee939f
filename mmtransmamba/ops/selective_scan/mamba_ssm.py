"""The selective scan of the ``mamba_ssm`` package, when it is installed."""

import functools
from collections.abc import Callable, Mapping

from torch import Tensor

from .reference import directions_by_gather


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
    if u.dtype != A.dtype or str(u.dtype) != 'torch.float32':
        return f'it computes in float32, not {u.dtype}'
    if A.shape[-1] > 256:
        return f'it takes at most 256 states, A has {A.shape[-1]}'
    return None


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
    return _selective_scan_fn()(
        u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state=True
    )


def scan_directions(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    order: Tensor,
    permute_params: bool,
    tap_index: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> tuple[Tensor, Tensor | None]:
    """Scan permuted copies one by one; see ``selective_scan_directions``."""
    return directions_by_gather(
        scan,
        u,
        delta,
        A,
        B,
        C,
        D,
        order,
        permute_params,
        tap_index,
        delta_bias,
        delta_softplus,
    )
