"""Where Triton kernels run, for the backends named ``triton`` of all ops.

No build step is needed: PyTorch for GPUs includes Triton. On a CPU the kernels run in
Triton's interpreter if ``TRITON_INTERPRET=1`` was set in the environment before Python
started; the interpreter is slow and meant for tests.

This module does not import Triton, which is imported when the first kernel is launched.
"""

import importlib.metadata
import importlib.util
import math
import os
from collections.abc import Mapping

import torch
from torch import Tensor

from .arguments import in_float64

OLDEST = (3, 6)
INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'
DEVICES = ('cpu',) if INTERPRETED else ('cuda', 'xpu')


def unavailable() -> str | None:
    """Why Triton cannot be used, or None."""
    if importlib.util.find_spec('triton') is None:
        return 'the package triton is not installed; it comes with PyTorch for GPUs'
    try:
        version = importlib.metadata.version('triton')
    except importlib.metadata.PackageNotFoundError:
        # Builds for other devices have other names and use PyTorch's version numbers.
        return None
    if tuple(int(part) for part in version.split('.')[:2]) < OLDEST:
        oldest = '.'.join(map(str, OLDEST))
        return f'it needs triton >= {oldest}, version {version} is installed'
    return None


def refuses_length(name: str, x: Tensor, power: int, dims: int = 2) -> str | None:
    """Why kernels with indices below ``2**power`` cannot take a tensor, or None.

    Args:
        name: Its name.
        x: Tensor whose last ``dims`` dimensions are one sequence.
        power: Power of two that the elements of a sequence must stay below.
        dims: Number of dimensions of a sequence.
    """
    if math.prod(x.shape[-dims:]) < 2**power:
        return None
    shape = list(x.shape)
    return f'it takes fewer than 2^{power} elements a sequence, {name} is {shape}'


def rows(x: Tensor, steps: int = -2) -> Tensor:
    """A tensor with unit stride over its last dimension, copied only if needed.

    Args:
        x: Tensor whose offsets within a sequence have to fit 32 bits.
        steps: Dimension of the steps of a sequence.
    """
    if x.stride(-1) == 1 and x.shape[steps] * x.stride(steps) < 2**31:
        return x
    return x.contiguous()


def refuses_place_or_dtype(
    first: str, tensors: Mapping[str, Tensor | None]
) -> str | None:
    """Why kernels with float32 sums cannot take these tensors where they are, or None.

    Args:
        first: Name of the tensor whose device is reported.
        tensors: All tensors by name.
    """
    device = tensors[first].device
    if device.type not in DEVICES:
        where = 'in its interpreter on the CPU' if INTERPRETED else 'on a GPU'
        return f'it runs {where}, {first} is on {device}'
    name = in_float64(tensors)
    if name is not None:
        return f'it has a float32 state, {name} is in {tensors[name].dtype}'
    return None


def refuses_gradient(tensors: Mapping[str, Tensor | None]) -> str | None:
    """Why a kernel without a gradient cannot take these tensors, or None."""
    if torch.is_grad_enabled():
        for name, x in tensors.items():
            if x is not None and x.requires_grad:
                return f'it has no gradient, {name} requires one'
    return None
