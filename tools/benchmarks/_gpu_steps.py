"""Values and times of the functions that decode one token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmtransmamba.ops import (
    backends,
    gated_delta_rule_step,
    kda_step,
    selective_scan_step,
    ssd_step,
)
from mmtransmamba.ops.causal_conv1d import causal_conv1d

HEAD = 64
STATES = {'selective_scan_step': 16, 'ssd_step': 128}
TAPS = 4
# Function, batch and channels; predicted milliseconds in a CUDA graph on an H100, from
# the bytes of a float32 state that is read and written once, and the launches.
STEPS = {
    ('selective_scan_step', 8, 4096): 0.004,
    ('ssd_step', 8, 4096): 0.013,
    ('gated_delta_rule_step', 8, 2048): 0.03,
    ('kda_step', 8, 2048): 0.03,
    ('causal_conv1d', 8, 4096): 0.02,
}


def operands_of(
    name: str, batch: int, channels: int, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Random operands of a step, with a float32 state."""
    generator = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    heads = (channels // HEAD, HEAD)
    if name == 'selective_scan_step':
        states = STATES[name]
        small = dict(
            state=randn(batch, channels, states),
            A=-torch.arange(1.0, states + 1).repeat(channels, 1),
            D=randn(channels),
        )
        large = dict(u=randn(batch, channels), delta=randn(batch, channels) - 2)
        large |= {x: randn(batch, states) for x in 'BC'}
    elif name == 'ssd_step':
        states = STATES[name]
        small = dict(
            state=randn(batch, *heads, states),
            A=-randn(heads[0]).exp(),
            D=randn(heads[0]),
        )
        large = dict(x=randn(batch, *heads), dt=randn(batch, heads[0]).sigmoid())
        large |= {x: randn(batch, 1, states) for x in 'BC'}
    elif name == 'causal_conv1d':
        small = dict(weight=randn(1, channels, TAPS), bias=randn(1, channels))
        large = dict(
            x=randn(batch, 1, channels), state=randn(batch, TAPS - 1, channels)
        )
    else:
        small = dict(state=randn(batch, *heads, HEAD))
        gates = (batch, *heads) if name == 'kda_step' else (batch, heads[0])
        large = {x: F.normalize(randn(batch, *heads), dim=-1) for x in 'qkv'}
        large |= dict(
            g=-F.softplus(randn(*gates)), beta=randn(batch, heads[0]).sigmoid()
        )
    return small | {x: value.to(dtype) for x, value in large.items()}


def step(name: str, operands: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Output and new state."""
    if name == 'causal_conv1d':
        return causal_conv1d(**operands, reverse=(False,), silu=True, return_state=True)
    functions: dict[str, Callable[..., Any]] = dict(
        selective_scan_step=partial(selective_scan_step, delta_softplus=True),
        ssd_step=ssd_step,
        gated_delta_rule_step=gated_delta_rule_step,
        kda_step=kda_step,
    )
    return functions[name](**operands)


@torch.no_grad()
def measure(
    session: Any, name: str, batch: int, channels: int, dtype: torch.dtype
) -> Iterator[tuple[str, float]]:
    """Errors against float64, and the time of a step.

    The delta rule's step is plain PyTorch; the others are one kernel each.
    """
    if session.dry:
        batch, channels = 2, 2 * HEAD
    operands = operands_of(name, batch, channels, dtype)
    exact = step(name, {x: value.double() for x, value in operands.items()})
    placed = {x: value.to(session.device) for x, value in operands.items()}
    plain = session.kernel is None or name in ('gated_delta_rule_step', 'kda_step')
    with nullcontext() if plain else backends.use_backend(session.kernel):
        found = step(name, placed)
        for part, one, other in zip(('y', 'state'), found, exact, strict=True):
            gap = (one.double().cpu() - other).abs().max() / other.abs().max()
            yield f'error of {part}', gap.item()
        run = partial(step, name, placed)
        yield 'step, ms', session.milliseconds(run)
        if session.device == 'cuda':
            yield 'step in a CUDA graph, ms', session.replayed(run)
