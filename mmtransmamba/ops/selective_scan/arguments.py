"""Checks of the selective scan's arguments: one clear error per mistake."""

from collections.abc import Mapping

import torch
from torch import Tensor


def check_tensors(**tensors: Tensor | None) -> torch.dtype:
    """Check that all are real floating tensors on one device.

    Args:
        **tensors (Tensor | None): The arguments by name, ``u`` first.

    Returns:
        torch.dtype: The dtype to compute in: float64 when an argument is float64,
        float32 otherwise, so that half precision never reaches the state.

    Raises:
        ValueError: If an argument has another dtype or device.
    """
    compute = torch.float32
    reference = tensors['u']
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
                f'{name} is on {tensor.device}, but u is on {reference.device}'
            )
        if tensor.dtype == torch.float64:
            compute = torch.float64
    return compute


def check_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
) -> None:
    """Check the shapes of ``selective_scan_fn``.

    Raises:
        ValueError: Naming the argument, its shape and what is accepted.
    """
    _expect_dims('u', u, '[B, D, L]')
    batch, channels, length = u.shape
    _expect_dims('A', A, '[D, N]')
    states = A.shape[1]
    _expect_filled(channels, length, states)
    sizes = {'B': batch, 'D': channels, 'L': length, 'N': states}
    _expect('delta', delta, '[B, D, L]', sizes)
    _expect('A', A, '[D, N]', sizes)
    for name, x in (('B', B), ('C', C)):
        if x.dim() == 2:
            _expect(name, x, '[D, N]', sizes)
        elif x.dim() == 3:
            _expect(name, x, '[B, N, L]', sizes)
        elif x.dim() == 4:
            groups = x.shape[1]
            if groups < 1 or channels % groups:
                raise ValueError(
                    f'{name} has {groups} groups (shape {list(x.shape)}), which do '
                    f'not divide the {channels} channels of u'
                )
            _expect(name, x, '[B, G, N, L]', {**sizes, 'G': groups})
        else:
            raise ValueError(
                f'{name} has shape {list(x.shape)}; accepted: [D, N], [B, N, L] or '
                f'[B, G, N, L]'
            )
    _expect('D', D, '[D]', sizes)
    _expect('z', z, '[B, D, L]', sizes)
    _expect('delta_bias', delta_bias, '[D]', sizes)


def check_directions(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    order: Tensor,
    tap_index: Tensor | None,
    delta_bias: Tensor | None,
) -> None:
    """Check the shapes of ``selective_scan_directions`` and its index tensors.

    Raises:
        ValueError: Naming the argument, its shape and what is accepted.
    """
    _expect_dims('u', u, '[B, 1 or K, D, L]')
    _expect_dims('order', order, '[K, L]')
    _expect_dims('A', A, '[1 or K, D, N]')
    batch, _, channels, length = u.shape
    states = A.shape[2]
    _expect_filled(channels, length, states)
    sizes = {
        'B': batch,
        'K': order.shape[0],
        'D': channels,
        'N': states,
        'L': length,
    }
    if sizes['K'] < 1:
        raise ValueError('order has shape [0, L]; at least one direction is needed')
    _expect('u', u, '[B, 1 or K, D, L]', sizes)
    _expect('delta', delta, '[B, 1 or K, D, L]', sizes)
    _expect('A', A, '[1 or K, D, N]', sizes)
    _expect('B', B, '[B, 1 or K, N, L]', sizes)
    _expect('C', C, '[B, 1 or K, N, L]', sizes)
    _expect('D', D, '[1 or K, D]', sizes)
    _expect('delta_bias', delta_bias, '[1 or K, D]', sizes)
    _expect('order', order, '[K, L]', sizes)
    _expect_index('order', order, u)
    if tap_index is not None:
        _expect_dims('tap_index', tap_index, '[K, M]')
        _expect('tap_index', tap_index, '[K, M]', {**sizes, 'M': tap_index.shape[1]})
        _expect_index('tap_index', tap_index, u)


def _expect_filled(channels: int, length: int, states: int) -> None:
    if channels < 1 or length < 1:
        raise ValueError(
            f'u has D = {channels} channels and L = {length} steps; at least one of '
            'each is needed'
        )
    if states < 1:
        raise ValueError('A has no states (N = 0); at least one is needed')


def _expect_index(name: str, index: Tensor, u: Tensor) -> None:
    if index.dtype != torch.int64:
        raise ValueError(f'{name} has dtype {index.dtype}; accepted: int64')
    if index.device != u.device:
        raise ValueError(f'{name} is on {index.device}, but u is on {u.device}')


def _expect_dims(name: str, tensor: Tensor, shape: str) -> None:
    if tensor.dim() != shape.count(',') + 1:
        raise ValueError(f'{name} has shape {list(tensor.shape)}; accepted: {shape}')


def _expect(
    name: str, tensor: Tensor | None, shape: str, sizes: Mapping[str, int]
) -> None:
    if tensor is None:
        return
    _expect_dims(name, tensor, shape)
    dims = shape.strip('[]').split(', ')
    for size, dim in zip(tensor.shape, dims, strict=True):
        if size != sizes[dim[-1]] and not (dim.startswith('1 or') and size == 1):
            known = ', '.join(f'{key} = {value}' for key, value in sizes.items())
            raise ValueError(
                f'{name} has shape {list(tensor.shape)}; accepted: {shape} with {known}'
            )
