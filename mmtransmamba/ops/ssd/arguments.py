"""Checks of the shapes of SSD's arguments: one clear error per mistake."""

from torch import Tensor

from ..arguments import expect, expect_dims


def check_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    initial_state: Tensor | None,
) -> None:
    """Check the shapes of ``ssd_scan``.

    Raises:
        ValueError: Naming the argument, its shape and what is accepted.
    """
    expect_dims('x', x, '[B, L, H, P]')
    expect_dims('B', B, '[B, L, G, N]')
    batch, length, heads, width = x.shape
    if length < 1:
        raise ValueError('x has L = 0 steps; at least one is needed')
    sizes = {'B': batch, 'L': length, **_channels(heads, width, *B.shape[2:])}
    expect('dt', dt, '[B, L, H]', sizes)
    expect('A', A, '[H]', sizes)
    expect('B', B, '[B, L, G, N]', sizes)
    expect('C', C, '[B, L, G, N]', sizes)
    expect('D', D, '[H]', sizes)
    expect('initial_state', initial_state, '[B, H, P, N]', sizes)


def check_step(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
) -> None:
    """Check the shapes of ``ssd_step``.

    Raises:
        ValueError: Naming the argument, its shape and what is accepted.
    """
    expect_dims('x', x, '[B, H, P]')
    expect_dims('B', B, '[B, G, N]')
    batch, heads, width = x.shape
    sizes = {'B': batch, **_channels(heads, width, *B.shape[1:])}
    expect('state', state, '[B, H, P, N]', sizes)
    expect('dt', dt, '[B, H]', sizes)
    expect('A', A, '[H]', sizes)
    expect('B', B, '[B, G, N]', sizes)
    expect('C', C, '[B, G, N]', sizes)
    expect('D', D, '[H]', sizes)


def _channels(heads: int, width: int, groups: int, states: int) -> dict[str, int]:
    if heads < 1 or width < 1:
        raise ValueError(
            f'x has H = {heads} heads of P = {width} channels; at least one of each '
            'is needed'
        )
    if states < 1:
        raise ValueError('B has no states (N = 0); at least one is needed')
    if groups < 1 or heads % groups:
        raise ValueError(
            f'B has {groups} groups, which do not divide the {heads} heads of x'
        )
    return {'H': heads, 'P': width, 'G': groups, 'N': states}
