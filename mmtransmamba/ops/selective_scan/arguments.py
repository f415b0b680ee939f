"""Checks of the selective scan's arguments: one clear error per mistake."""

from torch import Tensor

from ..arguments import expect, expect_dims, expect_index, expect_permutations


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
    expect_dims('u', u, '[B, D, L]')
    batch, channels, length = u.shape
    expect_dims('A', A, '[D, N]')
    states = A.shape[1]
    _expect_filled(channels, length, states)
    sizes = {'B': batch, 'D': channels, 'L': length, 'N': states}
    expect('delta', delta, '[B, D, L]', sizes)
    expect('A', A, '[D, N]', sizes)
    for name, x in (('B', B), ('C', C)):
        if x.dim() == 2:
            expect(name, x, '[D, N]', sizes)
        elif x.dim() == 3:
            expect(name, x, '[B, N, L]', sizes)
        elif x.dim() == 4:
            groups = _expect_groups(name, x, channels)
            expect(name, x, '[B, G, N, L]', {**sizes, 'G': groups})
        else:
            raise ValueError(
                f'{name} has shape {list(x.shape)}; accepted: [D, N], [B, N, L] or '
                f'[B, G, N, L]'
            )
    expect('D', D, '[D]', sizes)
    expect('z', z, '[B, D, L]', sizes)
    expect('delta_bias', delta_bias, '[D]', sizes)


def check_step(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    state: Tensor,
) -> None:
    """Check the shapes of ``selective_scan_step``.

    Raises:
        ValueError: Naming the argument, its shape and what is accepted.
    """
    expect_dims('u', u, '[B, D]')
    expect_dims('A', A, '[D, N]')
    batch, channels = u.shape
    if not A.numel():
        raise ValueError(
            f'A has shape {list(A.shape)}; at least one channel and one state are '
            'needed'
        )
    sizes = {'B': batch, 'D': channels, 'N': A.shape[1]}
    expect('A', A, '[D, N]', sizes)
    expect('state', state, '[B, D, N]', sizes)
    expect('delta', delta, '[B, D]', sizes)
    for name, x in (('B', B), ('C', C)):
        if x.dim() == 3:
            groups = _expect_groups(name, x, channels)
            expect(name, x, '[B, G, N]', {**sizes, 'G': groups})
        elif x.dim() == 2:
            expect(name, x, '[B, N]', sizes)
        else:
            raise ValueError(
                f'{name} has shape {list(x.shape)}; accepted: [B, N] or [B, G, N]'
            )
    expect('D', D, '[D]', sizes)
    expect('z', z, '[B, D]', sizes)
    expect('delta_bias', delta_bias, '[D]', sizes)


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
    expect_dims('u', u, '[B, 1 or K, D, L]')
    expect_dims('order', order, '[K, L]')
    expect_dims('A', A, '[1 or K, D, N]')
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
    expect('u', u, '[B, 1 or K, D, L]', sizes)
    expect('delta', delta, '[B, 1 or K, D, L]', sizes)
    expect('A', A, '[1 or K, D, N]', sizes)
    expect('B', B, '[B, 1 or K, N, L]', sizes)
    expect('C', C, '[B, 1 or K, N, L]', sizes)
    expect('D', D, '[1 or K, D]', sizes)
    expect('delta_bias', delta_bias, '[1 or K, D]', sizes)
    expect('order', order, '[K, L]', sizes)
    expect_index('order', order, u.device, length)
    expect_permutations('order', order)
    if tap_index is not None:
        expect_dims('tap_index', tap_index, '[K, M]')
        expect('tap_index', tap_index, '[K, M]', {**sizes, 'M': tap_index.shape[1]})
        expect_index('tap_index', tap_index, u.device, length)


def _expect_filled(channels: int, length: int, states: int) -> None:
    if channels < 1 or length < 1:
        raise ValueError(
            f'u has D = {channels} channels and L = {length} steps; at least one of '
            'each is needed'
        )
    if states < 1:
        raise ValueError('A has no states (N = 0); at least one is needed')


def _expect_groups(name: str, x: Tensor, channels: int) -> int:
    """The number of groups, dimension 1, which must divide the channels."""
    groups = x.shape[1]
    if groups < 1 or channels % groups:
        raise ValueError(
            f'{name} has {groups} groups (shape {list(x.shape)}), which do '
            f'not divide the {channels} channels of u'
        )
    return groups
