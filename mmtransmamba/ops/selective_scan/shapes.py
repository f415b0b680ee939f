"""The selective scan on the meta device: shapes without values, and without a kernel.

So that a model whose parameters are on the meta device can be run, to count what it
computes, in one call per scan on any machine.
"""

from collections.abc import Mapping

from torch import Tensor

from .native import scan, scan_directions

__all__ = ['refuses', 'scan', 'scan_directions', 'unavailable']


def unavailable() -> str | None:
    """Nothing is computed: the compiled library is not needed."""
    return None


def refuses(tensors: Mapping[str, Tensor | None]) -> str | None:
    """Why these tensors need another backend, or None."""
    if tensors['u'].device.type != 'meta':
        return f'it runs on the meta device, u is on {tensors["u"].device}'
    return None
