"""Checks of the arguments of ``bi_wkv`` and ``bi_wkv6``."""

from torch import Tensor

from ..arguments import expect, expect_dims, expect_index


def check_wkv(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> None:
    """Check the shapes of ``bi_wkv``.

    Raises:
        ValueError: Naming the argument, its shape and what is accepted.
    """
    sizes = _sizes(k)
    expect('v', v, '[B, T, C]', sizes)
    expect('w', w, '[C]', sizes)
    expect('u', u, '[C]', sizes)


def check_wkv6(r: Tensor, k: Tensor, v: Tensor, w: Tensor, u: Tensor) -> None:
    """Check the shapes of ``bi_wkv6``.

    Raises:
        ValueError: Naming the argument, its shape and what is accepted.
    """
    sizes = _sizes(k)
    for name, x in (('r', r), ('v', v), ('w', w)):
        expect(name, x, '[B, T, C]', sizes)
    expect_dims('u', u, '[H, D]')
    if u.numel() != sizes['C']:
        raise ValueError(
            f'u has shape {list(u.shape)}; accepted: [H, D], heads times width of a '
            f'head, with H * D = C = {sizes["C"]}'
        )


def check_taps(tap_index: Tensor | None, k: Tensor) -> None:
    """Check the indices of the tapped steps.

    Raises:
        ValueError: Naming the shape, dtype, device or range and what is accepted.
    """
    if tap_index is None:
        return
    expect_dims('tap_index', tap_index, '[2, M]')
    if tap_index.shape[0] != 2:
        raise ValueError(
            f'tap_index has shape {list(tap_index.shape)}; accepted: [2, M], the steps '
            'of the forward and of the backward direction'
        )
    expect_index('tap_index', tap_index, k.device, k.shape[1])


def _sizes(k: Tensor) -> dict[str, int]:
    expect_dims('k', k, '[B, T, C]')
    batch, length, channels = k.shape
    if length < 1 or channels < 1:
        raise ValueError(
            f'k has T = {length} tokens and C = {channels} channels; at least one of '
            'each is needed'
        )
    return {'B': batch, 'T': length, 'C': channels}
