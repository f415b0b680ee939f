"""Operands of the selective scan and the comparison of two implementations of it."""

from collections.abc import Callable

import torch
from torch import Tensor

Operands = dict[str, Tensor | None]


def plain_operands(
    batch: int = 2,
    channels: int = 12,
    length: int = 7,
    states: int = 3,
    groups: int | None = None,
    optional: bool = True,
    seed: int = 0,
) -> Operands:
    """Float32 operands of ``selective_scan_fn``, meant to go through softplus."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    kind = () if groups is None else (groups,)
    return {
        'u': randn(batch, channels, length),
        'delta': randn(batch, channels, length),
        'A': -4 * torch.rand(channels, states, generator=generator),
        'B': randn(batch, *kind, states, length),
        'C': randn(batch, *kind, states, length),
        'D': randn(channels) if optional else None,
        'z': randn(batch, channels, length) if optional else None,
        'delta_bias': randn(channels) if optional else None,
    }


def direction_operands(
    directions: int,
    length: int,
    states: int = 3,
    channels: int = 20,
    batch: int = 2,
    own: str = '',
    seed: int = 0,
) -> Operands:
    """Float32 operands of ``selective_scan_directions``.

    ``own`` lists, separated by blanks, the operands of which every direction has
    its own; the others are shared.
    """
    generator = torch.Generator().manual_seed(seed)

    def randn(name: str, *shape: int, batched: bool = True) -> Tensor:
        count = directions if name in own.split() else 1
        head = (batch, count) if batched else (count,)
        return torch.randn(*head, *shape, generator=generator)

    return {
        'u': randn('u', channels, length),
        'delta': randn('delta', channels, length),
        'A': -4 * randn('A', channels, states, batched=False).sigmoid(),
        'B': randn('B', states, length),
        'C': randn('C', states, length),
        'D': randn('D', channels, batched=False),
        'delta_bias': randn('delta_bias', channels, batched=False),
    }


def random_orders(directions: int, length: int, seed: int = 0) -> Tensor:
    """Random permutations ``[K, L]``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack(
        [torch.randperm(length, generator=generator) for _ in range(directions)]
    )


def outputs_and_gradients(
    function: Callable[..., tuple[Tensor | None, ...]],
    operands: Operands,
    dtype: torch.dtype,
) -> dict[str, Tensor]:
    """Outputs of ``function(**operands)`` and a gradient for every operand.

    The gradient that flows into the outputs is random but the same in every call.
    """
    leaves = {
        name: None if x is None else x.detach().to(dtype).requires_grad_()
        for name, x in operands.items()
    }
    results = [x for x in function(**leaves) if x is not None]
    generator = torch.Generator().manual_seed(1)
    torch.autograd.backward(
        results, [torch.randn(x.shape, generator=generator).to(x) for x in results]
    )
    named = {f'output {i}': x.detach() for i, x in enumerate(results)}
    named |= {f'gradient of {k}': x.grad for k, x in leaves.items() if x is not None}
    return named


def assert_close(
    actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float
) -> None:
    """Every tensor within ``tolerance`` of the largest expected value."""
    assert actual.keys() == expected.keys()
    for name, want in expected.items():
        got = actual[name].double()
        assert got.shape == want.shape, name
        gap = (got - want).abs().max() / want.abs().max().clamp(min=1e-30)
        assert gap < tolerance, f'{name} differs by {gap:.1e} of its maximum'
