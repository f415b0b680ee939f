"""SSD on the Triton kernels of the ``mamba_ssm`` package, when it is installed."""

import functools
from collections.abc import Callable, Mapping

from torch import Tensor

from . import fla

TAKES_HALF_PRECISION = True
CHUNK = 256


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
    """Why these tensors need another backend, or None."""
    return fla.refuses(tensors)


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
