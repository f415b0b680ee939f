"""Implementation of ``resolution.py``."""

from __future__ import annotations

import argparse
import csv
import ctypes
import gc
import multiprocessing
import os
import statistics
import sys
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from _decode import processor_name, write_between_marks
from _selective_scan import peak_units
from torch import Tensor, nn
from transformers import DeiTConfig, DeiTModel

from mmtransmamba.apis.compilation import fix_weights
from mmtransmamba.models.backbones import VRWKV, PlainMamba, Vim, VMamba

NAME = 'resolution'
PATCH = 16
WARM_UP_SIZE = 64
MIB, GIB = 2**20, 2**30
HEAD = """# Resolution

The cost of one forward pass against the side of the image.

<!-- begin figures -->
<!-- end figures -->
"""


class DeiT(nn.Module):
    """DeiT-Tiny of transformers, without its head."""

    def __init__(self, size: int) -> None:
        super().__init__()
        config = DeiTConfig(
            hidden_size=192,
            num_attention_heads=3,
            intermediate_size=768,
            image_size=size,
        )
        self.model = DeiTModel(config, add_pooling_layer=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images).last_hidden_state


def return_free_memory() -> None:
    """Give freed memory back to the system, where the C library can.

    Otherwise a pass would reuse it, and its own peak would not be seen.
    """
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def build(name: str, size: int) -> nn.Module:
    """A model of ``resolution.MODELS`` with random weights, for images of a side."""
    torch.manual_seed(0)
    if name == 'DeiT-T':
        return DeiT(size).eval()
    if name == 'VMamba-T':
        return VMamba('vanilla_tiny').eval()
    families = {'PlainMamba-L1': PlainMamba, 'Vim-T': Vim, 'VRWKV-T': VRWKV}
    archs = {'PlainMamba-L1': 'L1', 'Vim-T': 'tiny', 'VRWKV-T': 'tiny'}
    return families[name](archs[name], img_size=size).eval()


@torch.no_grad()
def measure(
    name: str, size: int, compiled: bool, args: argparse.Namespace
) -> dict[str, Any]:
    """One row: median times in milliseconds and the peak memory in MiB.

    The first pass allocates the memory, and is not timed.
    """
    torch.set_num_threads(args.threads)
    images = torch.randn(args.batch_size, 3, size, size)
    model = build(name, WARM_UP_SIZE)
    model(torch.randn(1, 3, WARM_UP_SIZE, WARM_UP_SIZE))
    model = build(name, size)
    if compiled:
        fix_weights(model)
        model(images)
    return_free_memory()
    peak = peak_units(lambda: model(images), MIB)
    processor, wall = [], []
    while len(wall) < args.repeats and sum(processor) < args.seconds:
        start, start_processor = time.perf_counter(), time.process_time()
        model(images)
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - start_processor)
    return dict(
        model=name,
        size=size,
        compiled=compiled,
        processor_ms=1e3 * statistics.median(processor),
        wall_ms=1e3 * statistics.median(wall),
        peak_mib=peak,
        repeats=len(wall),
    )


def _serve(answer: Connection, *case: Any) -> None:
    answer.send(measure(*case))


def apart(
    name: str, size: int, compiled: bool, args: argparse.Namespace
) -> dict[str, Any]:
    """:func:`measure` in a process of its own, which starts without other models.

    Raises:
        SystemExit: The process ended without a figure, for example for lack of memory.
    """
    # A fork has the imports already. No parallel operator has run before it.
    context = multiprocessing.get_context('fork')
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(theirs, name, size, compiled, args))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        process.join()
        raise SystemExit(
            f'{name} at {size} pixels ended with exit status {process.exitcode}.'
        ) from None
    finally:
        process.join()


def may_exceed(row: dict[str, Any] | None, size: int, limit: float) -> bool:
    """Whether a larger size may need more than ``limit`` GiB.

    Memory grows at most with the square of the number of tokens, as that of attention
    does.
    """
    if row is None or row['peak_mib'] is None:
        return False
    return row['peak_mib'] * MIB * (size / row['size']) ** 4 > limit * GIB


def measure_all(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Every model at every size that its memory allows."""
    rows = []
    for name in args.models:
        last = None
        for size in sorted(args.sizes):
            if may_exceed(last, size, args.memory_limit):
                print(f'{name}, {size} pixels: skipped for memory', file=sys.stderr)
                continue
            last = apart(name, size, False, args)
            rows.append(last)
            report(last)
    for name in args.models:
        for size in sorted(args.compiled_sizes):
            rows.append(apart(name, size, True, args))
            report(rows[-1])
    return rows


def report(row: dict[str, Any]) -> None:
    kind = ', compiled' if row['compiled'] else ''
    print(
        f'{row["model"]}, {row["size"]} pixels{kind}: {row["processor_ms"]:.0f} ms',
        file=sys.stderr,
    )


def settings(args: argparse.Namespace) -> str:
    """One line on what was measured where."""
    load = os.getloadavg()[0] if hasattr(os, 'getloadavg') else float('nan')
    return (
        f'float32, batch {args.batch_size}, medians of up to {args.repeats} passes, '
        f'PyTorch {torch.__version__}, {args.threads} thread(s) of {processor_name()}, '
        f'load average {load:.1f} of {os.cpu_count()} cores.'
    )


def table(rows: list[dict[str, Any]], key: str) -> str:
    """One line per size, one column per model; a dash where there is no figure."""
    models = list(dict.fromkeys(row['model'] for row in rows))
    found = {(row['size'], row['model']): row[key] for row in rows}
    lines = [f'| side | {" | ".join(models)} |', '|---' * (len(models) + 1) + '|']
    for size in sorted({row['size'] for row in rows}):
        values = (found.get((size, model)) for model in models)
        cells = ('–' if v is None else f'{v:,.0f}' for v in values)
        lines.append(f'| {size} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def markdown(rows: list[dict[str, Any]], header: str) -> str:
    """The part of the page between the marks."""
    plain = [row for row in rows if not row['compiled']]
    compiled = [row for row in rows if row['compiled']]
    parts = [
        header,
        f'![Latency and memory against resolution]({NAME}.png)',
        '**Processor milliseconds of a forward pass**',
        table(plain, 'processor_ms'),
    ]
    if compiled:
        parts += [
            '**Compiled for inference, processor milliseconds**',
            table(compiled, 'processor_ms'),
        ]
    parts += ['**Peak memory beyond the weights, MiB**', table(plain, 'peak_mib')]
    return '\n\n'.join(parts)


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Both figures on logarithmic axes."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    panels = (
        ('processor_ms', 'processor time of a pass (ms)'),
        ('peak_mib', 'peak memory beyond the weights (MiB)'),
    )
    figure, both = pyplot.subplots(1, 2, figsize=(10, 4))
    sizes = sorted({row['size'] for row in rows})
    for axes, (key, label) in zip(both, panels, strict=True):
        for model in dict.fromkeys(row['model'] for row in rows):
            points = [
                (row['size'], row[key])
                for row in rows
                if row['model'] == model
                and row[key] is not None
                and not row['compiled']
            ]
            style = dict(color='0.2', linestyle='--') if model == 'DeiT-T' else {}
            axes.plot(*zip(*points, strict=True), marker='o', label=model, **style)
        axes.set(xscale='log', yscale='log', xlabel='side (pixels)', ylabel=label)
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    both[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def write(rows: list[dict[str, Any]], header: str, folder: Path) -> None:
    """The CSV, the picture, and the page, whose text outside the marks stays."""
    with (folder / f'{NAME}.csv').open('w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {k: round(v, 1) if isinstance(v, float) else v for k, v in row.items()}
            )
    plot(rows, folder / f'{NAME}.png')
    page = folder / f'{NAME}.md'
    if not page.exists():
        page.write_text(HEAD, encoding='utf-8')
    write_between_marks(page, markdown(rows, header))


def run(args: argparse.Namespace) -> None:
    rows = measure_all(args)
    folder = Path(args.out)
    folder.mkdir(parents=True, exist_ok=True)
    write(rows, settings(args), folder)
    print(table(rows, 'processor_ms'))
    print(f'written to {folder / NAME}.md, .csv and .png')
