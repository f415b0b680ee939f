"""What ``gpu.py`` does."""

import argparse
import csv
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import _gpu_steps
import _gpu_training
import torch
import torch.nn.functional as F
from _decode import write_between_marks
from torch import Tensor

from mmtransmamba.ops import (
    backends,
    bi_wkv,
    bi_wkv6,
    gated_delta_rule,
    kda,
    scan_order,
    selective_scan_directions,
    selective_scan_fn,
    ssd_scan,
)
from mmtransmamba.ops.causal_conv1d import causal_conv1d
from mmtransmamba.ops.gated_norm import gated_norm
from mmtransmamba.ops.selective_scan.reference import directions_by_gather
from mmtransmamba.utils.claims import claim

RESULTS, SETTING = '[0-9][0-9][0-9].json', 'setting.json'
COLUMNS = ('part', 'case', 'measure', 'value', 'predicted')
DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16}
# Batch, channels, steps, states; predicted milliseconds of the forward pass in float32
# on an H100, from counts of instructions and bytes.
SHAPES = {
    (64, 384, 196, 16): 0.032,
    (8, 1536, 4096, 16): 0.336,
    (64, 192, 196, 16): 0.016,
    (1, 1536, 131072, 16): 2.0,
}
DIRECTIONS = 4
DIRECTIONS_PREDICTED = 0.096
HEAD = 64
SSD_STATES = 128
# Function, batch, tokens, channels; predicted as above, from counts of instructions.
MIXING = {
    ('bi_wkv', 64, 196, 192): 0.022,
    ('bi_wkv', 1, 16384, 192): 0.05,
    ('bi_wkv6', 64, 196, 192): 0.085,
    ('causal_conv1d', 64, 196, 384): 0.022,
    ('ssd_scan', 8, 2048, 3072): 0.9,
    ('gated_norm', 8, 2048, 2048): 0.14,
    ('gated_delta_rule', 64, 196, 192): 0.08,
    ('gated_delta_rule', 8, 4096, 1024): 1.3,
    ('kda', 64, 196, 192): 0.12,
    ('kda', 8, 4096, 1024): 2.0,
}
RULES = {'gated_delta_rule': gated_delta_rule, 'kda': kda}
# Packages whose kernels compute the same, and their backends' names; fla takes half
# precision only. On a CPU two of this package's backends stand in for them.
RIVALS = {
    'ssd_scan': ('ssd', ('mamba_ssm', 'fla')),
    'gated_delta_rule': ('delta_rule', ('fla',)),
    'kda': ('delta_rule', ('fla',)),
}
STAND_INS = {'mamba_ssm': 'native', 'fla': 'chunked'}
OVERHEAD_TARGET = 15.0
DECODE_CONTEXTS = ['4096', '32768', '131072']
DECODE_LIMIT = 240  # seconds


class Item(NamedTuple):
    """One thing to run: its part and case, and what gives ``(measure, value)``s.

    ``needs`` are an op and the backend of it that may not be available.
    """

    part: str
    case: str
    run: Callable[[], Iterator[tuple[str, float]]]
    predicted: dict[str, float] = {}
    needs: tuple[str, str] | None = None


class Session:
    """Sizes and device of a run.

    Args:
        dry (bool): Tiny sizes on the CPU instead of the real ones on the GPU.
    """

    def __init__(self, dry: bool) -> None:
        self.dry = dry
        self.device = 'cpu' if dry else 'cuda'
        # The interpreter is for tests; what runs on a CPU stands in for the kernels.
        self.kernel = None if dry else 'triton'

    def operands(
        self, batch: int, channels: int, length: int, states: int, dtype: torch.dtype
    ) -> dict[str, Tensor]:
        """Operands of a plain scan, laid out as linear layers make them."""
        if self.dry:
            batch, channels, length = 2, min(channels, 8), min(length, 16)
        generator = torch.Generator().manual_seed(0)

        def rows(width: int) -> Tensor:
            x = torch.randn(batch, length, width, generator=generator)
            return x.to(self.device, dtype).transpose(1, 2)

        rates = -torch.arange(1.0, states + 1).repeat(channels, 1)
        return dict(
            u=rows(channels),
            delta=rows(channels) - 2,
            A=rates.to(self.device),
            B=rows(states),
            C=rows(states),
            D=torch.ones(channels, device=self.device),
        )

    def milliseconds(self, function: Callable[[], Any]) -> float:
        """Median time of a call, after one that is not counted."""
        function()
        times = []
        for _ in range(2 if self.dry else 20):
            self.wait()
            start = time.perf_counter()
            function()
            self.wait()
            times.append(1e3 * (time.perf_counter() - start))
        return statistics.median(times)

    def replayed(self, function: Callable[[], Any], calls: int = 20) -> float:
        """Time of a call on the GPU alone: recorded calls, replayed without Python."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(calls):
                function()
        return self.milliseconds(graph.replay) / calls

    def wait(self) -> None:
        if self.device == 'cuda':
            torch.cuda.synchronize()

    def items(self) -> Iterator[Item]:
        """Everything there is to run, the most important first."""
        for shape in (
            (2, 40, 197, 16),
            (1, 33, 70, 1),
            (2, 8, 65, 64),
            (1, 4, 5000, 3),
        ):
            for name in DTYPES:
                case = f'{shape} {name}'
                yield Item('values', case, partial(self.values, shape, name))
        names = ['native', 'reference'] if self.dry else ['triton', 'mamba_ssm']
        for shape, predicted in SHAPES.items():
            for dtype in DTYPES:
                for name in names:
                    known = name == 'triton' and dtype == 'float32'
                    yield Item(
                        'scan',
                        f'{shape} {dtype} {name}',
                        partial(self.scan, shape, DTYPES[dtype], name),
                        {'forward in a CUDA graph, ms': predicted} if known else {},
                        ('selective_scan', name),
                    )
        for dtype in DTYPES:
            yield Item(
                'directions',
                f'K = {DIRECTIONS} {dtype}',
                partial(self.directions, DTYPES[dtype]),
                {'forward in a CUDA graph, ms': DIRECTIONS_PREDICTED}
                if dtype == 'float32'
                else {},
            )
        for (name, *shape), predicted in MIXING.items():
            for dtype in DTYPES:
                yield Item(
                    'mixing',
                    f'{name} {tuple(shape)} {dtype}',
                    partial(self.mixing, name, *shape, DTYPES[dtype]),
                    {'forward in a CUDA graph, ms': predicted}
                    if dtype == 'float32'
                    else {},
                )
            op, rivals = RIVALS.get(name, (None, ()))
            for rival in rivals:
                backend = STAND_INS[rival] if self.dry else rival
                yield Item(
                    'mixing',
                    f'{name} {tuple(shape)} bfloat16 {backend}',
                    partial(self.mixing, name, *shape, torch.bfloat16, backend),
                    needs=(op, backend),
                )
        for (name, *shape), predicted in _gpu_steps.STEPS.items():
            for dtype in DTYPES:
                yield Item(
                    'steps',
                    f'{name} {tuple(shape)} {dtype}',
                    partial(_gpu_steps.measure, self, name, *shape, DTYPES[dtype]),
                    {'step in a CUDA graph, ms': predicted}
                    if dtype == 'bfloat16'
                    else {},
                )
        for name in _gpu_training.BACKBONES:
            run = partial(_gpu_training.alone, name, self.device)
            yield Item('training', name, run)
        for name, config in _gpu_training.DISTILLERS.items():
            run = partial(_gpu_training.distilled, config, self.device)
            predicted = {'overhead of distillation, %': OVERHEAD_TARGET}
            yield Item('training', f'{name} distilled', run, predicted)
        yield Item('decode', 'llama-3.2-1b', self.decode)

    def values(self, shape: tuple, dtype: str) -> Iterator[tuple[str, float]]:
        """Largest errors of outputs and gradients, and whether two runs are equal."""
        operands = self.operands(*shape, DTYPES[dtype])

        def results(operands: dict[str, Tensor], backend: str | None) -> list[Tensor]:
            leaves = {k: x.detach().requires_grad_() for k, x in operands.items()}
            outputs = selective_scan_fn(
                **leaves, delta_softplus=True, return_last_state=True, backend=backend
            )
            loss = sum(x.double().sin().sum() for x in outputs)
            return [*outputs, *torch.autograd.grad(loss, list(leaves.values()))]

        exact = {k: x.detach().double().cpu() for k, x in operands.items()}
        expected = results(exact, 'reference')
        # Deterministic mode fills what is allocated with NaN.
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            found = results(operands, self.kernel)
            again = results(operands, self.kernel)
        finally:
            torch.use_deterministic_algorithms(False)
        names = ('y', 'last state', *(f'gradient of {k}' for k in operands))
        for name, one, other in zip(names, found, expected, strict=True):
            gap = (one.double().cpu() - other).abs().max() / other.abs().max()
            yield f'error of {name}', gap.item()
        equal = all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
        yield 'two runs have equal bits', float(equal)

    def scan(
        self, shape: tuple, dtype: torch.dtype, backend: str
    ) -> Iterator[tuple[str, float]]:
        """Time of the first call, of a forward pass, and of both passes."""
        operands = self.operands(*shape, dtype)
        leaves = {k: x.requires_grad_() for k, x in operands.items()}
        grad = torch.ones_like(operands['u'])

        def forward() -> Tensor:
            return selective_scan_fn(**leaves, delta_softplus=True, backend=backend)

        def both() -> None:
            torch.autograd.grad(forward(), list(leaves.values()), grad)

        start = time.perf_counter()
        both()
        self.wait()
        yield 'first call, s', time.perf_counter() - start
        with torch.no_grad():
            yield 'forward, ms', self.milliseconds(forward)
        yield 'forward and backward, ms', self.milliseconds(both)
        if self.device == 'cuda':
            with torch.no_grad():
                yield 'forward in a CUDA graph, ms', self.replayed(forward)

    def directions(self, dtype: torch.dtype) -> Iterator[tuple[str, float]]:
        """Four directions in one launch, and as scans of four permuted copies."""
        plain = self.operands(64, 384, 196, 16, dtype)
        A, D = plain.pop('A'), plain.pop('D')
        operands = {k: x[:, None] for k, x in plain.items()} | dict(
            A=A[None], D=D[None]
        )
        side = int(operands['u'].shape[-1] ** 0.5)
        order = scan_order.cross_scan(side, side, self.device)
        leaves = {k: x.detach().requires_grad_() for k, x in operands.items()}

        def scan(*arguments: Any) -> tuple[Tensor, Tensor]:
            return selective_scan_fn(
                *arguments, return_last_state=True, backend=self.kernel
            )

        def together() -> Tensor:
            return selective_scan_directions(
                **leaves, order=order, delta_softplus=True, backend=self.kernel
            )[0]

        def copies() -> Tensor:
            rest = dict(
                order=order,
                permute_params=True,
                tap_index=None,
                delta_bias=None,
                delta_softplus=True,
            )
            return directions_by_gather(scan, **leaves, **rest)[0]

        for name, function in (('', together), (' of four copies', copies)):

            def both(function: Callable[[], Tensor] = function) -> None:
                torch.autograd.grad(function().sum(), list(leaves.values()))

            with torch.no_grad():
                yield f'forward{name}, ms', self.milliseconds(function)
                if self.device == 'cuda':
                    yield f'forward{name} in a CUDA graph, ms', self.replayed(function)
            yield f'forward and backward{name}, ms', self.milliseconds(both)

    def mixing(
        self,
        name: str,
        batch: int,
        length: int,
        channels: int,
        dtype: torch.dtype,
        backend: str | None = None,
    ) -> Iterator[tuple[str, float]]:
        """Errors against float64 and times of other functions that mix tokens."""
        if self.dry:
            batch, length = 1, 5
        backend = backend or self.kernel or 'reference'
        generator = torch.Generator().manual_seed(0)

        def randn(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator)

        tokens, heads = (batch, length, channels), (channels // HEAD, HEAD)
        if name == 'bi_wkv':
            small = dict(w=randn(channels) / length, u=randn(channels) / length)
            large = dict(k=randn(*tokens), v=randn(*tokens))
        elif name == 'bi_wkv6':
            small = dict(u=randn(*heads))
            large = {x: randn(*tokens) for x in 'rkvw'}
        elif name == 'ssd_scan':
            small = dict(A=-randn(heads[0]).exp(), D=randn(heads[0]))
            large = {x: randn(batch, length, 1, SSD_STATES) for x in 'BC'}
            large |= dict(x=randn(batch, length, *heads))
            large |= dict(dt=0.1 * randn(batch, length, heads[0]).sigmoid())
        elif name in RULES:
            small, split = {}, (batch, length, *heads)
            gates = split if name == 'kda' else split[:3]
            large = {x: F.normalize(randn(*split), dim=-1) for x in 'qkv'}
            large |= dict(
                g=-F.softplus(randn(*gates)), beta=randn(*split[:3]).sigmoid()
            )
        elif name == 'gated_norm':
            small = dict(weight=randn(channels))
            large = {x: randn(*tokens) for x in 'yz'}
        else:
            small = dict(weight=randn(2, channels, 4), bias=randn(2, channels))
            large = dict(x=randn(*tokens))
        operands = small | {x: value.to(dtype) for x, value in large.items()}

        def run(leaves: dict[str, Tensor]) -> Tensor:
            if name == 'causal_conv1d':
                return causal_conv1d(**leaves, reverse=(False, True), silu=True)
            if name == 'gated_norm':
                kind = dict(group=HEAD, eps=1e-5, dtype=leaves['y'].dtype)
                return gated_norm(**leaves, **kind)
            functions = RULES | dict(bi_wkv=bi_wkv, bi_wkv6=bi_wkv6, ssd_scan=ssd_scan)
            return functions[name](**leaves)[0]

        def both(leaves: dict[str, Tensor]) -> list[Tensor]:
            y = run(leaves)
            return [y, *torch.autograd.grad(y.sum(), list(leaves.values()))]

        # One batch entry and few tokens are enough for the values, and fast in float64.
        part = operands | {x: operands[x][:1, :300] for x in large}

        def placed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            return {x: v.to(self.device).requires_grad_() for x, v in tensors.items()}

        exact = both({x: v.double().requires_grad_() for x, v in part.items()})
        with backends.use_backend(backend):
            found = both(placed(part))
            for x, one, other in zip(('y', *part), found, exact, strict=True):
                gap = (one.double().cpu() - other).abs().max() / other.abs().max()
                yield f'error of {x}', gap.item()
            leaves = placed(operands)
            with torch.no_grad():
                yield 'forward, ms', self.milliseconds(partial(run, leaves))
            yield 'forward and backward, ms', self.milliseconds(partial(both, leaves))
            if self.device == 'cuda':
                with torch.no_grad():
                    yield (
                        'forward in a CUDA graph, ms',
                        self.replayed(partial(run, leaves)),
                    )

    def decode(self) -> Iterator[tuple[str, float]]:
        """Milliseconds a token by model and context, from ``decode.py``."""
        script = Path(__file__).with_name('decode.py')
        command = [sys.executable, str(script), '--device', self.device]
        if self.dry:
            command += ['--models', 'pure', '--contexts', '16', '--new-tokens', '2']
        else:
            command += ['--size', 'llama-3.2-1b', '--dtype', 'bfloat16', '--contexts']
            command += [*DECODE_CONTEXTS, '--steps', 'eager', 'compiled']
        target = Path(self.folder) / 'decode.json'
        command += ['--repeats', '1', '--json', str(target)]
        subprocess.run(command, check=True, timeout=DECODE_LIMIT)
        for row in json.loads(target.read_text(encoding='utf-8')):
            case = f'{row["model"]} {row["step"]} at {row["context"]}'
            yield f'{case}, ms a token', row['ms_per_token']
            if row['peak'] is not None:
                yield f'{case}, peak memory, GB', row['peak'] / 1e9


def run(args: argparse.Namespace) -> None:
    """Run what is not done yet, until the time is up."""
    session = Session(args.dry_run)
    if not args.dry_run and not torch.cuda.is_available():
        sys.exit('gpu.py: there is no GPU here; --dry-run runs tiny sizes on the CPU')
    setting = dict(where=where(), dry_run=args.dry_run)
    claim(args.folder / SETTING, setting, RESULTS, 'results')
    session.folder = args.folder
    end = time.monotonic() + 60 * args.minutes
    left_out = []
    for i, item in enumerate(session.items()):
        path = args.folder / f'{i:03}.json'
        if item.part not in args.parts or (path.exists() and _succeeded(path)):
            continue
        if time.monotonic() > end:
            left_out.append(f'{item.part} {item.case}')
            continue
        rows = _rows(item)
        path.write_text(json.dumps(rows), encoding='utf-8')
        for row in rows:
            print(*row.values(), sep=' | ', flush=True)
    rows = collected(args.folder)
    write(rows, args.folder / 'gpu.csv', args.markdown)
    if left_out:
        print(f'The time is up; not run: {", ".join(left_out)}. Run it again.')


def _rows(item: Item) -> list[dict[str, Any]]:
    """Results of an item; one row with the error if there is one."""

    def row(measure: str, value: Any) -> dict[str, Any]:
        predicted = item.predicted.get(measure, '')
        return dict(
            zip(
                COLUMNS,
                (item.part, item.case, measure, value, predicted),
                strict=True,
            )
        )

    if item.needs is not None:
        op, backend = item.needs
        reason = backends.available(op)[backend]
        if reason is not None:
            return [row('not run', reason.splitlines()[0])]
    rows = []
    try:
        rows += (row(measure, value) for measure, value in item.run())
    except Exception as error:  # the other items are to run all the same
        rows.append(row('failed', f'{type(error).__name__}: {error}'.splitlines()[0]))
    return rows


def _succeeded(path: Path) -> bool:
    rows = json.loads(path.read_text(encoding='utf-8'))
    return all(row['measure'] not in ('failed', 'not run') for row in rows)


def collected(folder: Path) -> list[dict[str, Any]]:
    """All rows that the folder has, in order."""
    paths = sorted(folder.glob(RESULTS))
    return [row for path in paths for row in json.loads(path.read_text('utf-8'))]


def write(rows: list[dict[str, Any]], table: Path, markdown: Path | None) -> None:
    """Write the rows as CSV, and as Markdown between the marks of a page."""
    with table.open('w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    if markdown is None:
        return
    lines = [', '.join(where()), '', f'| {" | ".join(COLUMNS)} |', '|---' * 5 + '|']
    for row in rows:
        cells = (f'{x:.4g}' if isinstance(x, float) else str(x) for x in row.values())
        lines.append(f'| {" | ".join(cells)} |')
    write_between_marks(markdown, '\n'.join(lines))


def where() -> list[str]:
    """Card, versions, settings and commit."""
    card = platform.machine()
    if torch.cuda.is_available():
        card = torch.cuda.get_device_name()
    commit = subprocess.run(
        ['git', 'rev-parse', '--short', 'HEAD'],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
    ).stdout.strip()
    return [
        card,
        f'PyTorch {torch.__version__}',
        f'float32 products in {torch.get_float32_matmul_precision()} precision',
        f'commit {commit or "unknown"}',
    ]
