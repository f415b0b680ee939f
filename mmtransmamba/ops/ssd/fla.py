"""SSD on flash-linear-attention's Triton kernels, when the package is installed.

SSD is gated linear attention with a scalar decay per head: ``C`` is the query, ``B``
the key and ``dt * x`` the value.
"""

import functools
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

TAKES_HALF_PRECISION = True
MIN_DIM = 16
MIN_LENGTH = 9  # the next power of two is 16, the minimum number of rows of a tile


@functools.cache
def _chunk_simple_gla() -> Callable | ImportError:
    try:
        from fla.ops.simple_gla import chunk_simple_gla
    except ImportError as error:
        return error
    return chunk_simple_gla


def unavailable() -> str | None:
    """Why the package cannot be used, or None."""
    found = _chunk_simple_gla()
    return str(found) if isinstance(found, ImportError) else None


def refuses(tensors: Mapping[str, Tensor | None]) -> str | None:
    """Why these tensors need another backend, or None.

    The kernels multiply tiles of at least 16 rows and columns. Not all releases pad
    smaller ones (issues #22 and #88 and pull request #556 of flash-linear-attention),
    so smaller ones are refused.
    """
    reason = refuses_on_any_kernel(tensors)
    if reason is not None:
        return reason
    _, length, _, channels = tensors['x'].shape
    states = tensors['B'].shape[-1]
    if min(channels, states) < MIN_DIM:
        return (
            f'it takes heads of at least {MIN_DIM} channels and {MIN_DIM} states, '
            f'x has {channels} and B {states}'
        )
    if length < MIN_LENGTH:
        return f'it takes at least {MIN_LENGTH} steps, x has {length}'
    return None


def refuses_on_any_kernel(tensors: Mapping[str, Tensor | None]) -> str | None:
    """Tensors that neither this package's kernels nor those of ``mamba_ssm`` accept."""
    x = tensors['x']
    if x.device.type != 'cuda':
        return f'it runs on CUDA, x is on {x.device}'
    if x.numel() == 0:
        return 'it takes no empty batch'
    for name, tensor in tensors.items():
        if tensor is not None and tensor.dtype == torch.float64:
            return f'it has a float32 state, {name} is in {tensor.dtype}'
    return None


def scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    initial_state: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """See ``ssd_scan``; returns the output and the last state."""
    dt = dt.float()
    heads = x.shape[2] // B.shape[2]
    B, C = (part.to(x.dtype).repeat_interleave(heads, dim=2) for part in (B, C))
    if initial_state is not None:
        initial_state = initial_state.float().transpose(-1, -2)
    y, last_state = _chunk_simple_gla()(
        q=C,
        k=B,
        v=(dt[..., None] * x).to(x.dtype),
        g=dt * A.float(),
        scale=1.0,
        initial_state=initial_state,
        output_final_state=True,
    )
    if D is not None:
        y = y + D[:, None] * x
    return y, last_state.transpose(-1, -2)
