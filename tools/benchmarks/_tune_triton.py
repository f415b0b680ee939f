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
import torch.nn.functional as F
from _gpu import HEAD, MIXING, RULES, SHAPES, SSD_STATES, Session

from mmtransmamba.ops import backends, bi_wkv, selective_scan_fn, ssd_scan
from mmtransmamba.ops.causal_conv1d import causal_conv1d
from mmtransmamba.ops.causal_conv1d import triton_plan as conv_plan
from mmtransmamba.ops.delta_rule import triton_plan as delta_plan
from mmtransmamba.ops.gated_norm import gated_norm
from mmtransmamba.ops.gated_norm import triton_plan as norm_plan
from mmtransmamba.ops.selective_scan import triton_plan as scan_plan
from mmtransmamba.ops.ssd import triton_plan as ssd_plan
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
    wkvs, rules, ssds, convs, norms = [], [], [], [], []
    randn = partial(torch.randn, device=session.device)
    for name, batch, length, channels in MIXING:
        length = min(length, 16) if session.dry else length
        tokens = (batch, length, channels)
        if name == 'bi_wkv':
            operands = dict(
                w=randn(channels) / length,
                u=randn(channels) / length,
                k=randn(tokens),
                v=randn(tokens),
            )
            wkvs.append(_passes(bi_wkv, operands))
        elif name == 'ssd_scan':
            heads = (batch, length, channels // HEAD)
            operands = dict(
                x=randn(*heads, HEAD),
                dt=0.1 * randn(heads).sigmoid(),
                A=-randn(heads[2]).exp(),
            )
            operands |= {x: randn(batch, length, 1, SSD_STATES) for x in 'BC'}
            ssds.append(_passes(ssd_scan, operands))
        elif name == 'causal_conv1d':
            operands = dict(x=randn(tokens), weight=randn(2, channels, 4))
            operands['bias'] = randn(2, channels)
            convolve = partial(causal_conv1d, reverse=(False, True), silu=True)
            convs.append(_passes(convolve, operands))
        elif name == 'gated_norm':
            operands = dict(y=randn(tokens), z=randn(tokens), weight=randn(channels))
            norms += [
                _passes(partial(gated_norm, group=group, eps=1e-5), operands)
                for group in (HEAD, channels)
            ]
        elif name in RULES:
            heads = (batch, length, channels // HEAD)
            gates = heads if name == 'gated_delta_rule' else (*heads, HEAD)
            operands = {x: F.normalize(randn(*heads, HEAD), dim=-1) for x in 'qkv'}
            operands |= dict(g=-F.softplus(randn(gates)), beta=randn(heads).sigmoid())
            rules.append(_passes(RULES[name], operands))
    names = ('WIDE_FROM', 'SEGMENTS_BELOW', 'LONG', 'SHORTEST_SEGMENT')
    return [
        Kernel(scan_plan, names, scans),
        Kernel(wkv_plan, ('UNGROUPED', 'GROUP'), wkvs),
        Kernel(delta_plan, ('KEY_TILE', 'ENOUGH'), rules),
        Kernel(ssd_plan, ('CARRIED', 'PROGRAMS'), ssds),
        Kernel(conv_plan, ('STEPS', 'CHANNELS'), convs),
        Kernel(norm_plan, ('ELEMENTS', 'PROGRAMS'), norms),
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
        shown = ', '.join(f'{name} = {value}' for name, value in tried.items())
        try:
            with patch.multiple(kernel.plan, **tried), backends.use_backend(backend):
                times = [milliseconds(both) for both in kernel.passes]
        except Exception as error:  # tiles that are too small or do not fit
            print(shown, f'{type(error).__name__}: {error}'.splitlines()[0], sep=' | ')
            return math.inf
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
