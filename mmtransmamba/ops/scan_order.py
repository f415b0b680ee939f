"""Orders in which a one-dimensional scan visits the tokens of an image.

An order is an int64 tensor: step ``t`` of the scan reads raster token
``order[t]``, where the token at row ``r`` and column ``c`` of a grid ``(H, W)``
has raster index ``r * W + c``. A single order has shape ``[L]``, a set of ``K``
directions ``[K, L]``, with ``L = H * W``.

The tensors are cached and shared between callers: do not modify them in place.
"""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import NamedTuple

import torch
from torch import Tensor

from .untraced import plain_size, untraced

# A model uses a handful of grid sizes; multi-scale training a few dozen.
_CACHE = 128


def _cached(build: Callable) -> Callable:
    """Keep the results, except in ``torch.compile``, which would warn of the cache."""
    cache = lru_cache(maxsize=_CACHE)(build)

    @wraps(build)
    def cached(*key: int | str) -> Tensor | tuple[Tensor, ...]:
        return build(*key) if torch.compiler.is_dynamo_compiling() else cache(*key)

    cached.cache_clear = cache.cache_clear
    return cached


class ContinuousScan(NamedTuple):
    """The four continuous scans of PlainMamba over a grid, each ``[4, L]`` int64.

    Attributes:
        order (Tensor): Step to raster token.
        inverse (Tensor): Raster token to step.
        direction (Tensor): Direction from the previous step to this one:
            0 start, 1 right, 2 left, 3 up, 4 down.
    """

    order: Tensor
    inverse: Tensor
    direction: Tensor


def raster(height: int, width: int, device: str = 'cpu') -> Tensor:
    """Row by row, each row from left to right: ``[L]``."""
    return _grid(height, width, device).flatten()


def column(height: int, width: int, device: str = 'cpu') -> Tensor:
    """Column by column, each column from top to bottom: ``[L]``."""
    return _grid(height, width, device).T.flatten()


def snake_rows(height: int, width: int, device: str = 'cpu') -> Tensor:
    """Row by row, every second row from right to left: ``[L]``."""
    return _snake(_grid(height, width, device))


def snake_columns(height: int, width: int, device: str = 'cpu') -> Tensor:
    """Column by column, every second column from bottom to top: ``[L]``."""
    return _snake(_grid(height, width, device).T)


def reverse(order: Tensor) -> Tensor:
    """The same path in reverse, for ``[L]`` or ``[K, L]``."""
    return order.flip(-1)


def inverse(order: Tensor) -> Tensor:
    """Raster token to step, so that ``order.gather(-1, inverse(order))`` is 0, 1, ....

    Args:
        order (Tensor): Permutations ``[L]`` or ``[K, L]``.

    Returns:
        Tensor: The inverse permutations, of the same shape.
    """
    return order.argsort(-1)


def continuous_2d(height: int, width: int, device: str = 'cpu') -> ContinuousScan:
    """PlainMamba's four continuous scans (o1 to o4).

    Rows from the top left corner in a snake, the same path in reverse, columns
    from the top left corner in a snake, the same path in reverse. Neighbours in
    every scan are neighbours in the image.

    Args:
        height (int): Rows of the grid, at least 1.
        width (int): Columns of the grid, at least 1.
        device (str): Device of the tensors.

    Returns:
        ContinuousScan: ``order``, ``inverse`` and ``direction``, each ``[4, L]``.
    """
    return _continuous_2d(plain_size(height), plain_size(width), device)


@_cached
def _continuous_2d(height: int, width: int, device: str) -> ContinuousScan:
    # A tensor created in inference mode could not take part in later training.
    with torch.inference_mode(False), untraced():
        rows = snake_rows(height, width, device)
        columns = snake_columns(height, width, device)
        order = torch.stack([rows, reverse(rows), columns, reverse(columns)])
        move = order.diff(dim=-1)
        down = move // width
        # With a single column, a vertical move also changes the index by one.
        horizontal = (move.abs() == 1) & (width > 1)
        step = torch.where(horizontal, torch.where(move > 0, 1, 2), 0)
        step = torch.where(horizontal, step, torch.where(down > 0, 4, 3))
        direction = torch.cat([torch.zeros_like(order[:, :1]), step], dim=-1)
        return ContinuousScan(order, inverse(order), direction)


def cross_scan(height: int, width: int, device: str = 'cpu') -> Tensor:
    """VMamba's four scans: rows, columns, rows backwards, columns backwards.

    Args:
        height (int): Rows of the grid, at least 1.
        width (int): Columns of the grid, at least 1.
        device (str): Device of the tensor.

    Returns:
        Tensor: Orders ``[4, L]`` int64.
    """
    return _cross_scan(plain_size(height), plain_size(width), device)


@_cached
def _cross_scan(height: int, width: int, device: str) -> Tensor:
    with torch.inference_mode(False), untraced():
        paths = torch.stack(
            [raster(height, width, device), column(height, width, device)]
        )
        return torch.cat([paths, reverse(paths)])


def bidirectional(length: int, device: str = 'cpu') -> Tensor:
    """Forwards and backwards over a sequence (Vim, VideoMamba): ``[2, L]`` int64.

    Args:
        length (int): Number of tokens, at least 1.
        device (str): Device of the tensor.
    """
    return _bidirectional(plain_size(length), device)


@_cached
def _bidirectional(length: int, device: str) -> Tensor:
    with torch.inference_mode(False), untraced():
        forward = raster(1, length, device)
        return torch.stack([forward, reverse(forward)])


def _grid(height: int, width: int, device: str) -> Tensor:
    if height < 1 or width < 1:
        raise ValueError(
            f'a scan needs at least one row and one column, got {height} x {width}'
        )
    return torch.arange(height * width, device=device).view(height, width)


def _snake(grid: Tensor) -> Tensor:
    odd = (torch.arange(grid.shape[0], device=grid.device) % 2 == 1)[:, None]
    return torch.where(odd, grid.flip(1), grid).flatten()
