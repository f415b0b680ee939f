"""The gated delta rule on flash-linear-attention's Triton kernels, when installed."""

import functools
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

TAKES_HALF_PRECISION = True
TAKES_BEGINS = True
MIN_DIM = 16
MIN_LENGTH = 9  # the next power of two is 16, the minimum number of rows of a tile
MAX_KEYS = 256
STRONGEST = -30.0
"""Logarithm of the strongest decay of one step that goes to a kernel.

The kernels add up the logarithms of a chunk in float32 and take differences. A stronger
one, itself below the precision of half precision outputs, would take it from the decays
behind it."""


@functools.cache
def _functions() -> tuple[Callable, Callable] | ImportError:
    try:
        from fla.ops.gated_delta_rule import chunk_gated_delta_rule
        from fla.ops.kda import chunk_kda
    except ImportError as error:
        return error
    return chunk_gated_delta_rule, chunk_kda


def unavailable() -> str | None:
    """Why the package cannot be used, or None."""
    found = _functions()
    return str(found) if isinstance(found, ImportError) else None


def refuses(tensors: Mapping[str, Tensor | None]) -> str | None:
    """Why these tensors need another backend, or None.

    The kernels multiply tiles of at least 16 rows and columns, support states of up to
    256 key channels, and with one decay per head accept half precision only.
    """
    q, v = tensors['q'], tensors['v']
    if v.device.type != 'cuda':
        return f'it runs on CUDA, v is on {v.device}'
    if v.numel() == 0:
        return 'it takes no empty batch'
    for name, tensor in tensors.items():
        if tensor is not None and tensor.dtype == torch.float64:
            return f'it has a float32 state, {name} is in {tensor.dtype}'
    if v.dtype == torch.float32:
        return 'it takes float16 and bfloat16, v is in torch.float32'
    keys, values = q.shape[-1], v.shape[-1]
    if min(keys, values) < MIN_DIM or keys > MAX_KEYS:
        return (
            f'it takes heads of {MIN_DIM} to {MAX_KEYS} key channels and at least '
            f'{MIN_DIM} value channels, q has {keys} and v {values}'
        )
    if v.shape[1] < MIN_LENGTH:
        return f'it takes at least {MIN_LENGTH} steps, v has {v.shape[1]}'
    return None


def scan(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None,
    scale: float,
    begins: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """See ``gated_delta_rule`` and ``kda``; returns the output and the last state."""
    batch, length, heads = v.shape[:3]
    repeats = heads // q.shape[2]
    q, k = (x.to(v.dtype).repeat_interleave(repeats, dim=2) for x in (q, k))
    steps = dict(q=q, k=k, v=v, g=g.float().clamp(min=STRONGEST), beta=beta.float())
    starts = ends = None
    if initial_state is not None:
        initial_state = initial_state.float()
    if begins is not None:
        # The kernels support several sequences in one row only.
        steps = {name: x.flatten(0, 1)[None] for name, x in steps.items()}
        first = torch.arange(length, device=v.device) == 0
        starts = (begins | first).flatten().nonzero().squeeze(-1)
        ends = torch.cat((starts, starts.new_tensor([batch * length])))
        # The initial state of a row is unused if a sequence begins at its first step.
        states = v.new_zeros(len(starts), heads, q.shape[-1], v.shape[-1]).float()
        if initial_state is not None:
            kept = (~begins[:, 0]).nonzero().squeeze(-1)
            places = torch.searchsorted(starts, kept * length)
            states = states.index_copy(0, places, initial_state[kept])
        initial_state = states
    function = _functions()[g.dim() == 4]
    y, last_state = function(
        **steps,
        scale=scale,
        initial_state=initial_state,
        output_final_state=True,
        cu_seqlens=ends,
    )
    if begins is not None:
        y = y.reshape(v.shape)
        rows = torch.arange(1, batch + 1, device=v.device) * length
        last_state = last_state[torch.searchsorted(starts, rows) - 1]
    return y, last_state
