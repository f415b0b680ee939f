"""The delta rule on the meta device: shapes without values, and without a kernel.

So that a model whose parameters are on the meta device can be run, to count what it
computes, in one call per layer on any machine.
"""

from collections.abc import Mapping

from torch import Tensor

from .native import scan

__all__ = ['refuses', 'scan', 'unavailable']


def unavailable() -> str | None:
    """Nothing is computed: the compiled library is not needed."""
    return None


def refuses(tensors: Mapping[str, Tensor | None]) -> str | None:
    """Why these tensors need another backend, or None."""
    if tensors['v'].device.type != 'meta':
        return f'it runs on the meta device, v is on {tensors["v"].device}'
    return None
