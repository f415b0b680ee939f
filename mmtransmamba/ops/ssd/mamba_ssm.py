"""SSD on the Triton kernels of the ``mamba_ssm`` package, when it is installed."""

import functools
from collections.abc import Callable, Mapping

from torch import Tensor

from . import fla

TAKES_HALF_PRECISION = True
CHUNK = 256
MULTIPLE = 8
MAX_STATES = 256  # a tile with more does not fit a GPU's shared memory


@functools.cache
def _mamba_chunk_scan_combined() -> Callable | ImportError:
    try:
        from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined
    except ImportError as error:
        return error
    return mamba_chunk_scan_combined


def unavailable() -> str | None:
    """Why the package cannot be used, or None."""
    found = _mamba_chunk_scan_combined()
    return str(found) if isinstance(found, ImportError) else None


def refuses(tensors: Mapping[str, Tensor | None]) -> str | None:
    """Why these tensors need another backend, or None.

    Vectorised loads need multiples of eight channels and states (issue #352 of mamba).
    """
    reason = fla.refuses_on_any_kernel(tensors)
    if reason is not None:
        return reason
    channels, states = tensors['x'].shape[-1], tensors['B'].shape[-1]
    if channels % MULTIPLE or states % MULTIPLE:
        return (
            f'it takes heads with multiples of {MULTIPLE} channels and states, x has '
            f'{channels} and B {states}'
        )
    if states > MAX_STATES:
        return f'it takes at most {MAX_STATES} states, B has {states}'
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
    return _mamba_chunk_scan_combined()(
        x,
        dt.float(),
        A.float(),
        B.to(x.dtype),
        C.to(x.dtype),
        CHUNK,
        D=None if D is None else D.float(),
        initial_states=None if initial_state is None else initial_state.float(),
        return_final_states=True,
    )
