"""Implementation of ``tune_triton.py``."""

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from _gpu import MIXING, SHAPES, Session

from mmtransmamba.ops import backends, bi_wkv, selective_scan_fn
from mmtransmamba.ops.selective_scan import triton_plan as scan_plan
from mmtransmamba.ops.wkv import triton_plan as wkv_plan

FACTORS = (0.5, 2, 4)


class Kernel(NamedTuple):
    """A function whose sizes are tuned.

    Attributes:
        plan: The module with its sizes.
        sizes: Their names.
        passes: Forward and backward passes for several shapes.
    """

    plan: ModuleType
    sizes: Sequence[str]
    passes: Sequence[Callable[[], Any]]


def run(args: argparse.Namespace) -> None:
    """Tune every kernel and print the lines that differ from the tables."""
    if not args.dry_run and not torch.cuda.is_available():
        sys.exit(
            'tune_triton.py: there is no GPU here; --dry-run runs tiny sizes on the CPU'
        )
    session = Session(args.dry_run)
    lines = []
    for kernel in kernels(session):
        sizes = {name: getattr(kernel.plan, name) for name in kernel.sizes}
        best = tune(kernel, sizes, session.milliseconds, args.rounds)
        file = f'{kernel.plan.__name__.replace(".", "/")}.py'
        lines += [
            f'{file}: {name} = {value}'
            for name, value in best.items()
            if value != sizes[name]
        ]
    print('\n'.join(lines) or 'The tables have the best of these sizes.')


def kernels(session: Session) -> list[Kernel]:
    """The kernels with sizes that do not change what a program is."""
    scans = [
        _passes(
            partial(selective_scan_fn, delta_softplus=True),
            session.operands(*shape, torch.float32),
        )
        for shape in SHAPES
    ]
    wkvs = []
    for name, batch, length, channels in MIXING:
        if name == 'bi_wkv':
            length = min(length, 16) if session.dry else length
            randn = partial(torch.randn, device=session.device)
            tokens = (batch, length, channels)
            operands = dict(
                w=randn(channels) / length,
                u=randn(channels) / length,
                k=randn(tokens),
                v=randn(tokens),
            )
            wkvs.append(_passes(bi_wkv, operands))
    names = ('WIDE_FROM', 'SEGMENTS_BELOW', 'LONG', 'SHORTEST_SEGMENT')
    return [
        Kernel(scan_plan, names, scans),
        Kernel(wkv_plan, ('UNGROUPED', 'GROUP'), wkvs),
    ]


def _passes(
    function: Callable[..., Any], operands: dict[str, torch.Tensor]
) -> Callable[[], None]:
    leaves = {name: x.detach().requires_grad_() for name, x in operands.items()}

    def both() -> None:
        y = function(**leaves)
        y = y if isinstance(y, torch.Tensor) else y[0]
        torch.autograd.grad(y.sum(), list(leaves.values()))

    return both


def tune(
    kernel: Kernel,
    sizes: dict[str, int],
    milliseconds: Callable[[Callable[[], Any]], float],
    rounds: int,
) -> dict[str, int]:
    """Improve one size after another.

    Args:
        kernel: What is tuned.
        sizes: The sizes to start from, by name.
        milliseconds: Time of a call.
        rounds: How often all sizes are tried; it ends when a round changes nothing.
    """

    def cost(tried: dict[str, int]) -> float:
        with patch.multiple(kernel.plan, **tried), backends.use_backend(backend):
            times = [milliseconds(both) for both in kernel.passes]
        shown = ', '.join(f'{name} = {value}' for name, value in tried.items())
        print(shown, *(f'{time:.3f} ms' for time in times), sep=' | ', flush=True)
        return math.exp(sum(map(math.log, times)) / len(times))

    backend = 'triton' if torch.cuda.is_available() else 'native'
    best, least = dict(sizes), cost(sizes)
    for _ in range(rounds):
        before = dict(best)
        for name in best:
            for factor in FACTORS:
                tried = best | {name: max(1, int(before[name] * factor))}
                if tried != best and (found := cost(tried)) < least:
                    best, least = tried, found
        if best == before:
            break
    return best
