"""Implementation of ``selective_scan.py``."""

import argparse
import gc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from _race import (
    Contender,
    Target,
    agree,
    race,
    race_against_native,
    report,
    run_cases,
    timed_step,
)
from torch import Tensor

from mmtransmamba.models.mixers.plain_mamba import PlainMambaMixer
from mmtransmamba.ops import (
    scan_order,
    selective_scan_directions,
    selective_scan_fn,
)
from mmtransmamba.ops.selective_scan import native
from mmtransmamba.ops.selective_scan.reference import directions_by_gather

STATES = 16
# Peak memory of forward and backward beyond the inputs, in units of one [B, D, L]
# tensor: y, its gradient, the gradients of u and delta, and a part of one for states.
# Anything of shape [B, D, L, N] alone would be 16 of them.
MEMORY_LIMIT = 8


def plain_inputs(batch: int, channels: int, length: int) -> dict[str, Tensor]:
    """Operands as a Mamba layer creates them: delta, B and C from linear layers."""
    generator = torch.Generator().manual_seed(0)
    randn = partial(torch.randn, generator=generator)
    steps = torch.arange(1, STATES + 1, dtype=torch.float32)
    inputs = {
        'u': randn(batch, channels, length),
        'delta': randn(batch, length, channels).transpose(1, 2),
        'A': -steps.repeat(channels, 1),
        'B': randn(batch, length, STATES).transpose(1, 2),
        'C': randn(batch, length, STATES).transpose(1, 2),
        'D': torch.ones(channels),
        'delta_bias': randn(channels) - 4,
    }
    return {name: x.requires_grad_() for name, x in inputs.items()}


def with_pscan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
) -> Tensor:
    """mambapy's parallel scan, with the inputs of its own Mamba block."""
    from mambapy.pscan import pscan

    u, delta, B, C = (x.transpose(1, 2) for x in (u, delta, B, C))
    delta = F.softplus(delta + delta_bias)
    decay = torch.exp(delta.unsqueeze(-1) * A)
    drive = delta.unsqueeze(-1) * B.unsqueeze(2) * u.unsqueeze(-1)
    y = (pscan(decay, drive) @ C.unsqueeze(-1)).squeeze(3)
    return (y + D * u).transpose(1, 2)


def with_loop(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
) -> Tensor:
    """Step-by-step indexing, as in the slow paths of model libraries."""
    delta = F.softplus(delta + delta_bias[:, None])
    decay = torch.exp(delta.unsqueeze(-1) * A[:, None])
    drive = (delta * u).unsqueeze(-1) * B.transpose(1, 2).unsqueeze(1)
    state = torch.zeros_like(decay[:, :, 0])
    outputs = []
    for t in range(u.shape[2]):
        state = decay[:, :, t] * state + drive[:, :, t]
        outputs.append((state @ C[:, :, t].unsqueeze(-1)).squeeze(-1))
    return torch.stack(outputs, dim=-1) + D[:, None] * u


def peak_units(step: Callable[[], object], unit: int) -> float | None:
    """Additional peak resident memory during a step, in units of ``unit`` bytes.

    None where the kernel does not offer a resettable peak (outside Linux).
    """
    status, reset = Path('/proc/self/status'), Path('/proc/self/clear_refs')
    if not reset.exists():
        return None

    def read(key: str) -> int:
        line = next(s for s in status.read_text().splitlines() if s.startswith(key))
        return int(line.split()[1]) * 1024

    gc.collect()
    reset.write_text('5')
    before = read('VmRSS')
    step()
    return (read('VmHWM') - before) / unit


def run_plain(
    title: str,
    shape: tuple[int, int, int],
    with_slow: bool,
    targets: list[Target],
    args: argparse.Namespace,
) -> bool:
    inputs = plain_inputs(*shape)
    scan = partial(selective_scan_fn, delta_softplus=True)
    functions = {'native': partial(scan, backend='native'), 'pscan': with_pscan}
    if with_slow:
        functions['reference'] = partial(scan, backend='reference')
        functions['loop'] = with_loop
    native_step = partial(timed_step, functions['native'], inputs)
    units = peak_units(native_step, 4 * shape[0] * shape[1] * shape[2])
    met = report(
        f'{title}: (B, D, L) = {shape}, N = {STATES}',
        race_against_native(functions, inputs, args),
        targets,
    )
    if units is not None:
        met &= units < MEMORY_LIMIT
        print(
            f'target: peak extra memory of native < {MEMORY_LIMIT} x [B, D, L]: '
            f'{units:.1f} x {"met" if units < MEMORY_LIMIT else "MISSED"}'
        )
    return met


def run_image(args: argparse.Namespace) -> bool:
    targets = [Target('native', 'pscan', 20), Target('native', 'loop', 100)]
    return run_plain('image', (16, 384, 196), True, targets, args)


def run_long(args: argparse.Namespace) -> bool:
    targets = [Target('native', 'pscan', 20)]
    return run_plain('long', (1, 768, 16384), False, targets, args)


def run_directions(args: argparse.Namespace) -> bool:
    batch, channels, side = 16, 384, 14
    inputs = plain_inputs(batch, channels, side * side)
    per_batch, shared = ('u', 'delta', 'B', 'C'), ('A', 'D', 'delta_bias')
    inputs = {
        name: inputs[name].detach().unsqueeze(1 if name in per_batch else 0)
        for name in (*per_batch, *shared)
    }
    inputs['B'] = inputs['B'].expand(-1, 4, -1, -1).clone()
    inputs = {name: x.requires_grad_() for name, x in inputs.items()}
    options = dict(
        order=scan_order.continuous_2d(side, side).order,
        permute_params=False,
        tap_index=None,
        delta_softplus=True,
    )

    def indexed(**operands: Tensor) -> Tensor:
        return selective_scan_directions(**operands, **options, backend='native')[0]

    def copies(**operands: Tensor) -> Tensor:
        return directions_by_gather(native.scan, **operands, **options)[0]

    agree(indexed(**inputs), copies(**inputs), 'copies')
    contenders = [
        Contender('indexed', partial(timed_step, indexed, inputs)),
        Contender('permuted copies', partial(timed_step, copies, inputs)),
    ]
    return report(
        f'directions: 4 scans of (B, D, L) = {(batch, channels, side**2)}, '
        f'N = {STATES}',
        race(contenders, args.repeat, args.slow_repeat),
        [Target('indexed', 'permuted copies', 1)],
    )


def run_layer(args: argparse.Namespace) -> bool:
    batch, dims, side = 16, 192, 14
    torch.manual_seed(0)
    mixer = PlainMambaMixer(dims, d_state=STATES)
    tokens = torch.randn(batch, side * side, dims)

    parameters = dict(mixer.named_parameters())

    def forward(**_: Tensor) -> Tensor:
        return mixer(tokens, (side, side))

    step = partial(timed_step, forward, parameters)
    met = report(
        f'layer: PlainMamba mixer, width {dims}, {batch} images of {side} x {side}',
        race([Contender('mixer', step)], args.repeat, args.slow_repeat),
        [],
    )
    cpu = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[cpu]) as profile:
        for _ in range(args.repeat):
            step()
    events = profile.key_averages()
    total = sum(e.self_cpu_time_total for e in events)
    scan = sum(
        e.self_cpu_time_total for e in events if e.key.startswith('mmtransmamba::')
    )
    print(f'the scan takes {scan / total:.0%} of it')
    return met


CASES = {
    'image': run_image,
    'long': run_long,
    'directions': run_directions,
    'layer': run_layer,
}


def run(args: argparse.Namespace) -> int:
    """Run the cases; the exit status."""
    return run_cases(CASES, args)
