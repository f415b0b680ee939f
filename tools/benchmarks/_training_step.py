"""Implementation of ``training_step.py``."""

import argparse
import gc
import json
import statistics
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmtransmamba.models import Vim, VMamba
from mmtransmamba.ops import backends, selective_scan_fn

TARGET = 10.0
STUDENTS: dict[str, Callable[[], nn.Module]] = {
    'Vim-Ti': partial(Vim, 'tiny'),
    'VMamba-T': partial(VMamba, 'vanilla_tiny'),
}
CLASSES = 1000
SCAN = torch.ops.mmtransmamba.selective_scan
SCAN_PREFIX = 'mmtransmamba::selective_scan'  # forward and backward


class Step:
    """A training step of a backbone with a linear head.

    Args:
        backbone: Its last output is a class token ``[B, C]`` or a map to be averaged.
        batch: Number of images.
        size: Their side in pixels.
    """

    def __init__(self, backbone: nn.Module, batch: int, size: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(batch, 3, size, size, generator=generator)
        self.labels = torch.randint(CLASSES, (batch,), generator=generator)
        self.backbone = backbone
        with torch.no_grad():
            self.head = nn.Linear(self._features().shape[1], CLASSES)
        parameters = [*backbone.parameters(), *self.head.parameters()]
        # At a rate of 0, an update costs the same, and all runs have the same weights.
        self.optimizer = torch.optim.AdamW(parameters, lr=0.0)

    def _features(self) -> Tensor:
        features = self.backbone(self.images)[-1]
        return features.flatten(2).mean(2) if features.ndim > 2 else features

    def __call__(self) -> float:
        """Run the step and return the loss."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(self.head(self._features()), self.labels)
        loss.backward()
        self.optimizer.step()
        return loss.item()


def seconds(function: Callable[[], Any]) -> float:
    gc.collect()
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def scan_share(step: Callable[[], Any], repeat: int) -> float:
    """The share of the scans in a step's time, forward and backward."""
    cpu = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[cpu]) as profile:
        for _ in range(repeat):
            step()
    times = {e.key: e.self_cpu_time_total for e in profile.key_averages()}
    scans = sum(t for key, t in times.items() if key.startswith(SCAN_PREFIX))
    return scans / sum(times.values())


def count_scans(step: Step) -> Counter:
    """The number of scans ``(B, D, L, N)`` of one direction in a forward pass."""
    seen: Counter = Counter()

    def note(u, delta, A, B, C, D, z, bias, order, *_, **__) -> int:
        batch, _, channels, length = u
        seen[batch, channels, length, A[-1]] += order[0]
        return 0

    # A FLOP counter sees the shapes that reach an operator.
    counter = FlopCounterMode(display=False, custom_mapping={SCAN: note})
    with torch.no_grad(), counter, backends.use_backend('native'):
        step.backbone(step.images)
    return seen


def transformers_scan() -> Callable[..., Tensor]:
    """The scan of transformers' Mamba, as run by its CPU path.

    Raises:
        ImportError: This transformers release does not have it as a function.
    """
    from transformers.models.mamba import modeling_mamba

    return modeling_mamba.mamba_selective_scan


def one_scan(
    function: Callable[..., Tensor], shape: tuple[int, int, int, int]
) -> Callable[[], None]:
    """Forward and backward of a plain scan ``(B, D, L, N)``."""
    batch, channels, length, states = shape
    generator = torch.Generator().manual_seed(0)
    randn = partial(torch.randn, generator=generator)
    inputs = [
        randn(batch, channels, length),
        randn(batch, channels, length),
        -torch.arange(1.0, states + 1).repeat(channels, 1),
        randn(batch, states, length),
        randn(batch, states, length),
        torch.ones(channels),
        None,
        randn(channels) - 4,
    ]
    wanted = [x.requires_grad_() for x in inputs if x is not None]

    def run() -> Tensor:
        y = function(*inputs, True)
        torch.autograd.grad(y, wanted, torch.ones_like(y))
        return y.detach()

    return run


def transformers_seconds(scans: Counter, steps: int, repeat: int) -> float:
    """Lower bound of the seconds that transformers' scan takes for all ``scans``.

    Raises:
        RuntimeError: It computes a different result from ours.
    """
    function = transformers_scan()
    total = 0.0
    for (batch, channels, length, states), count in scans.items():
        timed = min(length, steps)
        shape = (batch, channels, timed, states)
        run = one_scan(function, shape)
        ours = one_scan(selective_scan_fn, shape)()
        gap = ((run() - ours).abs().max() / ours.abs().max()).item()
        if not gap < 1e-4:
            raise RuntimeError(f"transformers' scan differs from ours by {gap:.1e}")
        once = statistics.median(seconds(run) for _ in range(repeat))
        total += once * count * length / timed
    return total


def measure(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """One model's row.

    Raises:
        RuntimeError: Native and reference do not compute the same loss.
    """
    torch.manual_seed(0)
    backbone = STUDENTS[name]()
    backbone.reset_parameters()
    step = Step(backbone, args.batch_size, args.image_size)

    def on(backend: str) -> tuple[float, float]:
        """Seconds and loss of a step with the same drop path every time."""
        torch.manual_seed(0)
        gc.collect()
        with backends.use_backend(backend):
            begin = time.perf_counter()
            loss = step()
            return time.perf_counter() - begin, loss

    on('native')  # warms up
    times: dict[str, list[float]] = {'native': [], 'reference': []}
    losses = {}
    for turn in range(max(args.repeat, args.slow_repeat)):
        for backend, runs in times.items():
            if turn < (args.repeat if backend == 'native' else args.slow_repeat):
                elapsed, losses[backend] = on(backend)
                runs.append(elapsed)
    if abs(losses['native'] - losses['reference']) > 1e-4:
        raise RuntimeError(f'{name}: the losses differ: {losses}')
    medians = {backend: statistics.median(runs) for backend, runs in times.items()}

    with backends.use_backend('native'):
        share = scan_share(step, args.repeat)
    scans = count_scans(step)
    row = dict(model=name, **medians, scan_share=share)
    row['scans'] = {' x '.join(map(str, shape)): n for shape, n in scans.items()}
    if not args.no_transformers:
        others = (1 - share) * medians['native']
        row['transformers'] = others + transformers_seconds(
            scans, args.scan_steps, args.slow_repeat
        )
    return row


def print_row(row: dict[str, Any]) -> None:
    fast, reference = row['native'], row['reference']
    bound = f'{"not run":>20}'
    if 'transformers' in row:
        seconds_ = row['transformers']
        bound = f'  > {seconds_:7.0f} ({seconds_ / fast:5.0f}x)'
    print(
        f'{row["model"]:18}{fast:10.3f}{reference:10.1f} ({reference / fast:4.1f}x)'
        f'{bound}{row["scan_share"]:17.0%}',
        flush=True,
    )


def run(args: argparse.Namespace) -> int:
    """Measure and print all models; the exit status."""
    if args.threads:
        torch.set_num_threads(args.threads)
    print(
        f'torch {torch.__version__}, {torch.get_num_threads()} threads, batch '
        f'{args.batch_size}, {args.image_size} pixels'
    )
    print(
        f'{"seconds per step":18}{"native":>10}{"reference":>18}{"transformers":>20}'
        f'{"scan in native":>18}',
        flush=True,
    )
    rows = []
    for name in args.models:
        rows.append(measure(name, args))
        print_row(rows[-1])
    if args.json:
        settings = {k: v for k, v in vars(args).items() if k not in ('json', 'models')}
        settings.update(torch=torch.__version__, threads=torch.get_num_threads())
        args.json.write_text(json.dumps(dict(settings=settings, rows=rows), indent=2))
    met = all(row['reference'] >= TARGET * row['native'] for row in rows)
    print(f'target: native >= {TARGET:g} x reference: {"met" if met else "MISSED"}')
    return 0 if met else 1
