"""Write docs/model_zoo.md: a row for each registered architecture.

Parameters and FLOPs are recomputed each time. Throughput is measured only with
``--measure`` and kept in docs/model_zoo.json. Architectures in that file are not
measured again, so an interrupted run continues where it stopped.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _tool import Parser, out_file, positive, real, tool

if TYPE_CHECKING:
    from mmtransmamba.models.backbones.base import VisionBackbone

_ROOT = Path(__file__).absolute().parents[2]
DOCS = _ROOT / 'docs'
SIZE = 224
CLASSES = 1000


@dataclass(frozen=True)
class Release:
    """The source of a family's weights.

    Attributes:
        repository: Repository on GitHub.
        container: Format in which its files hold the weights.
        unreleased: Architectures without published weights.
    """

    repository: str
    container: str
    unreleased: tuple[str, ...] = ()


RELEASES = {
    'PlainMamba': Release(
        'ChenhongyiYang/PlainMamba',
        '`state_dict`, names under `backbone.` and `head.fc`',
        unreleased=('T', 'S', 'B'),
    ),
    'VMamba': Release('MzeroMiko/VMamba', '`model`, in some files also `model_ema`'),
    'Vim': Release('hustvl/Vim', '`model`'),
    'VideoMamba': Release('OpenGVLab/VideoMamba', '`model` (images), flat (videos)'),
    'VRWKV': Release('OpenGVLab/Vision-RWKV', 'names under `backbone.` and `head`'),
}
# Files of tests/data/golden by architecture; names may have a resolution appended.
GOLDEN = {
    ('PlainMamba', 'L1'): ('plainmamba_l1',),
    ('VMamba', 'vanilla_tiny'): ('vmamba_vanilla_tiny',),
    ('VMamba', 'tiny_s1l8'): ('vmamba_tiny_s1l8',),
    ('Vim', 'tiny'): ('vim_tiny',),
    ('VideoMamba', 'tiny'): ('videomamba_tiny_image', 'videomamba_tiny_video8'),
    ('VRWKV', 'tiny'): ('vrwkv_tiny',),
    ('VRWKV', 'v6-tiny'): ('vrwkv6_tiny',),
}

HEADER = """\
# Model zoo

This table lists every registered architecture. `tools/analysis_tools/model_zoo.py`
generates it.

- **Parameters**: of the backbone alone, and with a linear head of 1,000 classes.
- **FLOPs**: of the backbone for one image of 224×224 pixels, in 10⁹. A multiplication
  and its addition count as one; [kernels](kernels.md) explains how scans are counted.
  The second number is the share of the scans.
- **Images/s**: forward passes of the backbone on such images, in float32: {setting}.
- **Checkpoints**: the repository whose released files load unchanged. This package
  contains no weights.
- **Compared**: files of `tests/data/golden` with outputs of the official code for given
  weights. The tests compare this architecture with them. The other architectures use
  the same code with other dimensions.

"""
COLUMNS = (
    *('model', 'arch', 'parameters', 'with head', 'FLOPs', 'in scans', 'images/s'),
    *('checkpoints', 'compared'),
)
FOOTER = """
| model | official repository | file contents |
|---|---|---|
{releases}

`mmtransmamba.models.load_pretrained` reads all of these. Names may have one or several
of the prefixes that training code adds (`module.`, `_orig_mod.`, `model.`, `student.`,
`backbone.` and the like). If a file has several models, `container='model_ema'` selects
one. A file whose names match twice is refused. The function reports the tensors that it
loaded and converted, and refuses those that do not fit.
"""


def architectures() -> Iterator[tuple[type[VisionBackbone], str]]:
    """Every backbone class of the package with each of its architectures' names."""
    from mmtransmamba.models import backbones

    for name in backbones.__all__:
        family = getattr(backbones, name)
        for arch in family.ARCHS:
            yield family, arch


def counts(family: type[VisionBackbone], arch: str) -> dict[str, int]:
    """Parameters and FLOPs of an architecture."""
    import torch

    from mmtransmamba.utils.flops import count_complexity

    with torch.device('meta'):
        model = family(arch)
    widths: list[int] = []
    model.register_forward_hook(lambda *call: widths.append(call[-1][-1].shape[1]))
    count = count_complexity(model, (1, 3, SIZE, SIZE))
    return dict(
        params=count.params,
        with_head=count.params + (widths[0] + 1) * CLASSES,
        flops=count.flops,
        scan_flops=count.scan_flops,
    )


def line(cells: Iterable[str]) -> str:
    return f'| {" | ".join(cells)} |'


def row(
    family: type[VisionBackbone], arch: str, images_per_second: float | None
) -> str:
    """One line of the table."""
    name = family.__name__
    count = counts(family, arch)
    golden = ', '.join(f'`{file}`' for file in GOLDEN.get((name, arch), ()))
    unreleased = arch in RELEASES[name].unreleased
    cells = (
        name,
        f'`{arch}`',
        f'{count["params"]:,}',
        f'{count["with_head"]:,}',
        f'{count["flops"] / 1e9:.3f}',
        f'{count["scan_flops"] / 1e9:.3f}',
        '-' if images_per_second is None else f'{images_per_second:.1f}',
        '-' if unreleased else RELEASES[name].repository,
        golden or '-',
    )
    return line(cells)


def page(record: dict[str, Any]) -> str:
    """The whole document, given the measured throughput."""
    from mmtransmamba.models import backbones

    setting = 'not measured yet'
    if record:
        setting = (
            'batches of {batch} on {threads} threads of a CPU ({cpu}), '
            'PyTorch {torch}, the median of up to {repeat}'.format(**record['setting'])
        )
    measured = record.get('images_per_second', {})
    rows = [
        row(family, arch, measured.get(f'{family.__name__} {arch}'))
        for family, arch in architectures()
    ]
    releases = [
        f'| {name} | [{r.repository}](https://github.com/{r.repository}) '
        f'| {r.container} |'
        for name, r in RELEASES.items()
        if name in backbones.__all__
    ]
    return (
        HEADER.format(setting=setting)
        + '\n'.join([line(COLUMNS), line(['---'] * len(COLUMNS)), *rows])
        + '\n'
        + FOOTER.format(releases='\n'.join(releases))
    )


def throughput(
    family: type[VisionBackbone], arch: str, args: argparse.Namespace
) -> float:
    """Images per second: the median of as many batches as fit into the time."""
    import torch

    model = family(arch).eval()
    images = torch.randn(args.batch_size, 3, SIZE, SIZE)
    times: list[float] = []
    with torch.inference_mode():
        model(images)
        while len(times) < args.repeat and sum(times) < args.seconds:
            start = time.perf_counter()
            model(images)
            times.append(time.perf_counter() - start)
    return args.batch_size / statistics.median(times)


def cpu_name() -> str:
    path = Path('/proc/cpuinfo')
    lines = path.read_text().splitlines() if path.is_file() else []
    names = (x.split(':')[1].strip() for x in lines if x.startswith('model name'))
    return next(names, 'unknown CPU')


def measure(args: argparse.Namespace) -> None:
    """Update the record, architecture by architecture.

    Raises:
        ValueError: The record comes from another machine or other settings.
    """
    import torch

    from mmtransmamba.utils.checkpoint_files import write

    setting = dict(
        threads=torch.get_num_threads(),
        cpu=cpu_name(),
        torch=torch.__version__.split('+')[0],
        batch=args.batch_size,
        repeat=args.repeat,
    )
    record = {} if args.again else read_record(args.json)
    if record and record['setting'] != setting:
        raise ValueError(
            f'{args.json} was measured with {record["setting"]}, this would be with '
            f'{setting}. Give the same settings, or --again to measure all anew.'
        )
    record = record or dict(setting=setting, images_per_second={})
    for family, arch in architectures():
        key = f'{family.__name__} {arch}'
        if key in record['images_per_second']:
            continue
        rate = throughput(family, arch, args)
        record['images_per_second'][key] = round(rate, 2)
        write(args.json, (json.dumps(record, indent=2) + '\n').encode())
        print(f'{key}: {rate:.1f} images/s', flush=True)


def read_record(path: Path) -> dict[str, Any]:
    """The measurements of earlier runs; empty if there is no file.

    Raises:
        ValueError: The file has another content; the message names it.
    """
    if not path.is_file():
        return {}
    from mmtransmamba.utils.text_files import read_json

    record = read_json(path)
    fields = {'setting', 'images_per_second'}
    if not isinstance(record, dict) or not (not record or fields <= set(record)):
        raise ValueError(
            f'{path} is not a record of measurements, which has '
            f'{" and ".join(sorted(fields))}.'
        )
    return record


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument(
        '--measure', action='store_true', help='measure what the record lacks'
    )
    parser.add_argument(
        '--again', action='store_true', help='measure everything anew, with --measure'
    )
    parser.add_argument('--batch-size', type=positive, default=4)
    parser.add_argument('--repeat', type=positive, default=9, help='batches, at most')
    parser.add_argument(
        '--seconds', type=real(0), default=10, help='begin no batch after this time'
    )
    parser.add_argument('--threads', type=positive, help='default: as torch decides')
    parser.add_argument('--json', type=out_file, default=DOCS / 'model_zoo.json')
    parser.add_argument('--out', type=out_file, default=str(DOCS / 'model_zoo.md'))
    return parser.parse_args()


@tool(parse_args)
def main(args: argparse.Namespace) -> None:
    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    if args.measure:
        measure(args)
    args.out.write_text(page(read_record(args.json)), encoding='utf-8')


if __name__ == '__main__':
    main()
