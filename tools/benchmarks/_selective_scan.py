"""Implementation of ``selective_scan.py``."""

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
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


@dataclass
class Contender:
    """One implementation: its name, its step, and whether it is a slow one."""

    name: str
    step: Callable[[], tuple[float, float]]
    slow: bool = False


@dataclass
class Target:
    """``slower`` must take at least ``factor`` times as long as ``faster``."""

    faster: str
    slower: str
    factor: float


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


def timed_step(
    function: Callable[..., Tensor], inputs: dict[str, Tensor]
) -> tuple[float, float]:
    """Seconds of one forward and of one backward pass."""
    start = time.perf_counter()
    y = function(**inputs)
    middle = time.perf_counter()
    torch.autograd.grad(y, list(inputs.values()), torch.ones_like(y))
    return middle - start, time.perf_counter() - middle


def race(
    contenders: list[Contender], repeat: int, slow_repeat: int
) -> dict[str, tuple[float, float]]:
    """Median forward and backward seconds of every contender."""
    times = {c.name: [] for c in contenders}
    for c in contenders:
        if not c.slow:
            c.step()
    for turn in range(repeat):
        for c in contenders:
            if turn < (slow_repeat if c.slow else repeat):
                times[c.name].append(c.step())
                gc.collect()
    return {
        name: tuple(statistics.median(part) for part in zip(*runs, strict=True))
        for name, runs in times.items()
    }


def report(
    title: str, medians: dict[str, tuple[float, float]], targets: list[Target]
) -> bool:
    """Print a table and the targets; returns whether all targets are met."""
    print(f'\n{title}')
    print(f'{"":24}{"forward":>12}{"backward":>12}{"both":>12}{"x":>8}')
    best = sum(next(iter(medians.values())))
    for name, (forward, backward) in medians.items():
        both = forward + backward
        cells = ''.join(f'{1e3 * t:9.1f} ms' for t in (forward, backward, both))
        print(f'{name:24}{cells}{both / best:8.1f}')
    met = True
    for target in targets:
        factor = sum(medians[target.slower]) / sum(medians[target.faster])
        met &= factor >= target.factor
        print(
            f'target: {target.faster} >= {target.factor:g} x {target.slower}: '
            f'{factor:.1f} x {"met" if factor >= target.factor else "MISSED"}'
        )
    return met


def agree(reference: Tensor, other: Tensor, name: str) -> None:
    """Check that two implementations compute the same before timing them."""
    gap = (reference - other).abs().max() / reference.abs().max()
    if not gap < 1e-4:
        raise RuntimeError(f'{name} differs from the native kernel by {gap:.1e}')


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
    with torch.no_grad():
        expected = functions['native'](**inputs)
        for name, function in functions.items():
            agree(expected, function(**inputs), name)
    contenders = [
        Contender(name, partial(timed_step, function, inputs), name != 'native')
        for name, function in functions.items()
    ]
    met = report(
        f'{title}: (B, D, L) = {shape}, N = {STATES}',
        race(contenders, args.repeat, args.slow_repeat),
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
    if args.threads:
        torch.set_num_threads(args.threads)
    print(f'torch {torch.__version__}, {torch.get_num_threads()} threads')
    return 0 if all([CASES[name](args) for name in args.cases]) else 1
