"""Implementations of an operator race in turns, for the benchmarks of operators."""

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor


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


def race_against_native(
    functions: dict[str, Callable[..., Tensor]],
    inputs: dict[str, Tensor],
    args: argparse.Namespace,
) -> dict[str, tuple[float, float]]:
    """Race implementations after checking that they agree; see :func:`race`.

    Args:
        functions: Implementations by name, the first one ``'native'``.
        inputs: Their operands, by keyword.
        args: With ``repeat`` and ``slow_repeat``.
    """
    with torch.no_grad():
        expected = functions['native'](**inputs)
        for name, function in functions.items():
            agree(expected, function(**inputs), name)
    contenders = [
        Contender(name, partial(timed_step, function, inputs), name != 'native')
        for name, function in functions.items()
    ]
    return race(contenders, args.repeat, args.slow_repeat)


def run_cases(
    cases: dict[str, Callable[[argparse.Namespace], bool]], args: argparse.Namespace
) -> int:
    """Run the requested cases; the exit status."""
    if args.threads:
        torch.set_num_threads(args.threads)
    print(f'torch {torch.__version__}, {torch.get_num_threads()} threads')
    return 0 if all([cases[name](args) for name in args.cases]) else 1
