"""The selective scan on the meta device: shapes without values or kernels.

With it, a model whose parameters are on the meta device can run on any machine, with
one call per scan, to count its operations.
"""

from collections.abc import Mapping

from torch import Tensor

from .native import scan, scan_directions

__all__ = ['refuses', 'scan', 'scan_directions', 'unavailable']


def unavailable() -> str | None:
    """Nothing is computed, so the compiled library is not needed."""
    return None


def refuses(tensors: Mapping[str, Tensor | None]) -> str | None:
    """Why these tensors need another backend, or None."""
    if tensors['u'].device.type != 'meta':
        return f'it runs on the meta device, u is on {tensors["u"].device}'
    return None
