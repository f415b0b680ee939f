"""Checks of the shapes of the delta rule's arguments: one clear error per mistake."""

import torch
from torch import Tensor

from ..arguments import expect, expect_dims


def check_scan(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None,
    gate: str,
) -> None:
    """Check the shapes of a scan.

    Args:
        q, k, v, g, beta, initial_state: As for ``gated_delta_rule``.
        gate: Accepted shape of ``g``.

    Raises:
        ValueError: Naming the argument, its shape and what is accepted.
    """
    expect_dims('q', q, '[B, L, G, K]')
    expect_dims('v', v, '[B, L, H, V]')
    batch, length = v.shape[:2]
    if length < 1:
        raise ValueError('v has L = 0 steps; at least one is needed')
    sizes = {'B': batch, 'L': length, **_channels(*q.shape[2:], *v.shape[2:])}
    expect('q', q, '[B, L, G, K]', sizes)
    expect('k', k, '[B, L, G, K]', sizes)
    expect('g', g, gate, sizes)
    expect('beta', beta, '[B, L, H]', sizes)
    expect('initial_state', initial_state, '[B, H, K, V]', sizes)


def check_begins(begins: Tensor, v: Tensor) -> None:
    """Check the mask that marks where sequences begin.

    Raises:
        ValueError: If it is not bool ``[B, L]`` on the device of ``v``.
    """
    expect('begins', begins, '[B, L]', {'B': v.shape[0], 'L': v.shape[1]})
    if begins.dtype != torch.bool:
        raise ValueError(f'begins has dtype {begins.dtype}; accepted: bool')
    if begins.device != v.device:
        raise ValueError(f'begins is on {begins.device}, v on {v.device}')


def check_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    state: Tensor,
    gate: str,
) -> None:
    """Check the shapes of a single step.

    Args:
        q, k, v, g, beta, state: As for ``gated_delta_rule_step``.
        gate: Accepted shape of ``g``.

    Raises:
        ValueError: Naming the argument, its shape and what is accepted.
    """
    expect_dims('q', q, '[B, G, K]')
    expect_dims('v', v, '[B, H, V]')
    sizes = {'B': v.shape[0], **_channels(*q.shape[1:], *v.shape[1:])}
    expect('q', q, '[B, G, K]', sizes)
    expect('k', k, '[B, G, K]', sizes)
    expect('g', g, gate, sizes)
    expect('beta', beta, '[B, H]', sizes)
    expect('state', state, '[B, H, K, V]', sizes)


def _channels(groups: int, keys: int, heads: int, values: int) -> dict[str, int]:
    if heads < 1 or values < 1:
        raise ValueError(
            f'v has H = {heads} heads of V = {values} channels; at least one of each '
            'is needed'
        )
    if keys < 1:
        raise ValueError('q has no channels (K = 0); at least one is needed')
    if groups < 1 or heads % groups:
        raise ValueError(
            f'q has {groups} heads, which do not divide the {heads} heads of v'
        )
    return {'H': heads, 'V': values, 'G': groups, 'K': keys}
