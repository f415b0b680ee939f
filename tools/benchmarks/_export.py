"""Implementation of ``export.py``."""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmtransmamba.apis.export import export_model
from mmtransmamba.apis.export_formats import FORMATS, quiet
from mmtransmamba.models import VRWKV, PlainMamba, VideoMamba, Vim, VMamba

MODELS: dict[str, Callable[[int], nn.Module]] = {
    'PlainMamba-L1': lambda size: PlainMamba('L1', img_size=size),
    'Vim-Ti': lambda size: Vim('tiny', img_size=size),
    'VMamba-T': lambda _: VMamba('vanilla_tiny'),
    'VideoMamba-Ti': lambda size: VideoMamba('tiny', img_size=size),
    'VRWKV-T': lambda size: VRWKV('tiny', img_size=size),
    'VRWKV6-T': lambda size: VRWKV('v6-tiny', img_size=size),
}
# Name of a column, format, ending, scan.
FILES = [
    ('ONNX', 'onnx', '.onnx', 'portable'),
    ('TorchScript', 'torchscript', '.pt', 'portable'),
    ('TorchScript native', 'torchscript', '.pt', 'native'),
    ('torch.export', 'torch_export', '.pt2', 'portable'),
    ('torch.export native', 'torch_export', '.pt2', 'native'),
]


def milliseconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return 1000 * (time.perf_counter() - start)


def measure(name: str, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One model's row: medians by column, and facts of its ONNX file."""
    torch.manual_seed(0)
    model = MODELS[name](args.image_size)
    model.reset_parameters()
    model.eval()
    shape = (3, args.image_size, args.image_size)
    row: dict[str, Any] = dict(model=name)
    runs: dict[str, Callable] = {'PyTorch': model}
    for column, format, suffix, scan in FILES:
        if args.formats and column not in args.formats:
            continue
        path = folder / f'{name}_{scan}{suffix}'
        start = time.perf_counter()
        report = export_model(model, shape, path, format, scan=scan)
        row[f'{column}: export seconds'] = time.perf_counter() - start
        row[f'{column}: difference'] = max(report.differences.values())
        if report.nodes:
            row['nodes'], row['MiB'] = report.nodes, report.size / 2**20
        with quiet():
            runs[column] = FORMATS[format].read(path)
    images = torch.randn(1, *shape)
    times: dict[str, list[float]] = {column: [] for column in runs}
    with torch.no_grad():
        for turn in range(1 + args.repeat):
            for column, run in runs.items():
                elapsed = milliseconds(partial(run, images))
                if turn:  # the first warms up
                    times[column].append(elapsed)
    row |= {column: statistics.median(values) for column, values in times.items()}
    return row


def run(args: argparse.Namespace) -> None:
    if args.threads:
        torch.set_num_threads(args.threads)
    columns = ['PyTorch', *(args.formats or [column for column, *_ in FILES])]
    print(
        f'torch {torch.__version__}, {torch.get_num_threads()} threads, '
        f'{args.image_size} pixels, batch 1, medians of {args.repeat}, ms'
    )
    print(f'| model | {" | ".join(columns)} | ONNX MiB | nodes |')
    print('|---' * (len(columns) + 3) + '|')
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in args.models:
            rows.append(measure(name, args, Path(folder)))
            row = rows[-1]
            cells = [f'{row[column]:.1f}' for column in columns]
            facts = ['', '']
            if 'nodes' in row:
                facts = [f'{row["MiB"]:.1f}', str(row['nodes'])]
            print(f'| {name} | {" | ".join([*cells, *facts])} |', flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2))
