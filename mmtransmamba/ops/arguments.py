"""Checks of arguments that the ops share: one clear error per mistake."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from .untraced import is_recorded


def check_tensors(**tensors: Tensor | None) -> torch.dtype:
    """Check that all are real floating tensors on one device.

    Args:
        **tensors (Tensor | None): The arguments by name. The first one sets the
            device.

    Returns:
        torch.dtype: The dtype to compute in: float64 when an argument is float64,
        float32 otherwise, so that half precision never reaches the state.

    Raises:
        ValueError: If an argument has another dtype or device.
    """
    compute = torch.float32
    first, reference = next(iter(tensors.items()))
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if not isinstance(tensor, Tensor):
            raise ValueError(f'{name} must be a tensor, got {type(tensor).__name__}')
        if not tensor.is_floating_point():
            raise ValueError(
                f'{name} has dtype {tensor.dtype}; accepted: float16, bfloat16, '
                'float32, float64'
            )
        if tensor.device != reference.device:
            raise ValueError(
                f'{name} is on {tensor.device}, but {first} is on {reference.device}'
            )
        if tensor.dtype == torch.float64:
            compute = torch.float64
    return compute


def in_float64(tensors: Mapping[str, Tensor | None]) -> str | None:
    """Name of the first tensor in float64, which makes the op compute in it."""
    for name, x in tensors.items():
        if x is not None and x.dtype == torch.float64:
            return name
    return None


def upcast(
    named: Mapping[str, Tensor | None], dtype: torch.dtype
) -> dict[str, Tensor | None]:
    """The same tensors in another dtype."""
    return {k: None if x is None else x.to(dtype) for k, x in named.items()}


def finite_rates(A: Tensor) -> Tensor:
    """Decay rates, with minus infinity replaced by the most negative finite number.

    Otherwise a zero step size, or a zero gradient, times infinity would give NaN.
    """
    return A.clamp(min=torch.finfo(A.dtype).min)


def expect_dims(name: str, tensor: Tensor, shape: str) -> None:
    """Check the number of dimensions against a shape such as ``'[B, L, D]'``.

    Raises:
        ValueError: If the number of dimensions differs.
    """
    if tensor.dim() != shape.count(',') + 1:
        raise ValueError(f'{name} has shape {list(tensor.shape)}; accepted: {shape}')


def expect(
    name: str, tensor: Tensor | None, shape: str, sizes: Mapping[str, int]
) -> None:
    """Check a shape against the sizes that its letters stand for.

    Args:
        name (str): Name of the argument.
        tensor (Tensor, optional): Tensor to check; None is accepted.
        shape (str): Letters, such as ``'[B, 1 or K, L]'``.
        sizes (Mapping[str, int]): Size of each letter.

    Raises:
        ValueError: If the shape does not match.
    """
    if tensor is None:
        return
    expect_dims(name, tensor, shape)
    dims = shape.strip('[]').split(', ')
    for size, dim in zip(tensor.shape, dims, strict=True):
        if size != sizes[dim[-1]] and not (dim.startswith('1 or') and size == 1):
            known = ', '.join(f'{key} = {value}' for key, value in sizes.items())
            raise ValueError(
                f'{name} has shape {list(tensor.shape)}; accepted: {shape} with {known}'
            )


def expect_index(name: str, index: Tensor, device: torch.device, size: int) -> None:
    """Check that an index tensor is int64 and on the device of the other tensors.

    Its values are checked, too, where that does not wait for a GPU and nothing is
    recorded.

    Args:
        name (str): Name of the argument.
        index (Tensor): The indices.
        device (torch.device): Device of the other tensors.
        size (int): Number of what they count; they are from 0 to ``size - 1``.

    Raises:
        ValueError: If it is not, or an index is out of range.
    """
    if index.dtype != torch.int64:
        raise ValueError(f'{name} has dtype {index.dtype}; accepted: int64')
    if index.device != device:
        raise ValueError(f'{name} is on {index.device}, the other tensors on {device}')
    if not has_values(index) or not index.numel():
        return
    low, high = int(index.min()), int(index.max())
    if low < 0 or high >= size:
        raise ValueError(
            f'{name} has indices from {low} to {high}; accepted: 0 to {size - 1}'
        )


def expect_permutations(name: str, index: Tensor) -> None:
    """Check that each row of an index tensor ``[K, L]`` has every index of a row once.

    It is not checked where :func:`expect_index` does not check values.

    Raises:
        ValueError: If one does not.
    """
    if not has_values(index):
        return
    seen = torch.zeros(index.shape, dtype=torch.bool)
    if not seen.scatter_(1, index, True).all():
        raise ValueError(
            f'each row of {name} must be a permutation of 0 to {index.shape[1] - 1}'
        )


def has_values(index: Tensor) -> bool:
    """Whether a tensor's values can be looked at without waiting for a device."""
    return (
        index.device.type == 'cpu'
        and not is_recorded()
        and not isinstance(index, FakeTensor)
    )
