"""The page of the study of ``convert_vit.py``, from the rows that there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean

from mmtransmamba.utils.seed_statistics import mean_and_spread

Rows = Sequence[Mapping[str, str]]

_SETTING = """\
Teacher: DeiT-Tiny of ImageNet-1k (12 layers, 3 heads, 197 tokens), its logits cut to
the ten classes of Imagenette. Validation images are enlarged from 96 to 224 pixels.
Mixers have the attention's v, k, q and output projection; with `scratch` they have
nothing from it. `calibrate` fits each mixer alone to the attention, on training images
without labels. Before training, all other weights are the teacher's. Mixers from
`scratch` have almost closed gates, so their layers nearly keep their input: these rows
show what the model does without the attention. Layers are spread evenly. There is one
conversion and one calibration; seeds are those of a training's order and augmentation
of images. All are tested on the same {images} images: the standard error that comes
with so few is up to {error:.1f} points, and is not in the spread over seeds.

The tables are written by

```bash
MMTRANSMAMBA_DATA=data python tools/studies/convert_vit.py --seeds 0 1 2
MMTRANSMAMBA_DATA=data python tools/studies/convert_vit.py --parts trained \\
    --mixers Mamba2 --ratios 1 --train-steps 200 --seeds 0 1 2
```

## Before training
"""
_CIFAR10 = """\
A ViT of six blocks for images of 32 pixels (64 patches), which
`tools/studies/cifar10_teacher.py` trains on all 50,000 images. Both stages see 2,000 of
them, 200 of each class: those of the transfer into a PlainMamba and of the PlainMamba
alone, [on the same images](vision.md#the-same-on-cifar-10). Ten times as many images as
above for calibration and test.

```bash
MMTRANSMAMBA_DATA=data python tools/studies/convert_vit.py --parts cifar10 \\
    --mixers Mamba2 --train-steps 200 --batch 32 --seeds 0 1 2
```

"""


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    rows = [head, ['---'] * len(head), *lines]
    return ['| ' + ' | '.join(row) + ' |' for row in rows] + ['']


def _before(rows: Rows) -> list[str]:
    """The table of what the hybrids score before any training."""
    return _table(
        ('mixer', 'init', 'layers', 'top-1 %', 'agrees with the teacher %', 'KL'),
        (
            (
                row['mixer'],
                f'`{row["init"]}`',
                f'{100 * float(row["ratio"]):.0f} %',
                f'{float(row["top1"]):.1f}',
                f'{float(row["agreement"]):.1f}',
                f'{float(row["kl"]):.2f}',
            )
            for row in rows
            if row['mixer'] != 'teacher'
        ),
    )


def _trained(rows: Rows) -> list[str]:
    """The table of training, with the rows of each setting averaged over seeds."""
    groups: dict[tuple[str, ...], list[Mapping[str, str]]] = {}
    for row in rows:
        key = tuple(row[k] for k in ('steps', 'batch', 'mixer', 'ratio', 'stage'))
        groups.setdefault(key, []).append(row)
    return _table(
        (
            *('mixer', 'layers', 'after', 'steps', 'images a step', 'seeds'),
            *('top-1 %', 'agrees %', 'seconds'),
        ),
        (
            (
                mixer,
                f'{100 * float(ratio):.0f} %',
                f'`{stage}`',
                steps,
                batch,
                str(len(found)),
                mean_and_spread([float(row['top1']) for row in found], 1),
                mean_and_spread([float(row['agreement']) for row in found], 1),
                _seconds(found),
            )
            for (steps, batch, mixer, ratio, stage), found in sorted(
                groups.items(), key=lambda group: (int(group[0][0]), int(group[0][1]))
            )
        ),
    )


def _seconds(rows: Rows) -> str:
    """Mean of the rows that have a time; an interrupted training has none."""
    times = [float(row['seconds']) for row in rows if row['seconds']]
    return f'{mean(times):.0f}' if times else '–'


def _teacher(rows: Rows) -> Mapping[str, str]:
    """The teacher's row on the images that most of the rows have, of such the most."""
    counts = Counter(row['images'] for row in rows)
    teachers = [row for row in rows if row['mixer'] == 'teacher']
    return max(teachers, key=lambda row: (counts[row['images']], int(row['images'])))


def _tested_as(teacher: Mapping[str, str], rows: Rows) -> Rows:
    """The rows that were measured on as many images as the teacher's."""
    return [row for row in rows if row['images'] == teacher['images']]


def _cifar10(tables: Mapping[str, Rows]) -> list[str]:
    """The section on the other teacher; empty if nothing was measured."""
    if not tables['before']:
        return []
    teacher = _teacher(tables['before'])
    lines = [
        '## The teacher on CIFAR-10',
        '',
        _CIFAR10.rstrip(),
        '',
        f'The teacher is right in {float(teacher["top1"]):.1f} % of the first '
        f'{int(teacher["images"]):,} test images.',
        '',
        *_before(_tested_as(teacher, tables['before'])),
    ]
    if trained := _tested_as(teacher, tables['trained']):
        lines += ['After both stages:', '', *_trained(trained)]
    return lines


def _imagenette(tables: Mapping[str, Rows]) -> list[str]:
    """The sections on DeiT-Tiny before and after a training."""
    teacher = _teacher(tables['before'])
    images = int(teacher['images'])
    lines = [
        _SETTING.format(images=images, error=50 / images**0.5),
        f'The teacher is right in {float(teacher["top1"]):.1f} % of the images.',
        '',
        *_before(_tested_as(teacher, tables['before'])),
    ]
    if trained := _tested_as(teacher, tables['trained']):
        lines += [
            '## After a short training',
            '',
            'Calibrated hybrids, trained in two stages of as many steps each with the',
            'configs of `configs/quickstart/hybrid_vit`: `align` trains the mixers',
            'towards the teacher without labels, and `tune` everything with labels and',
            "the teacher's logits. Too short to converge. Seconds are processor time",
            'of the stage, on one thread of a shared core.',
            '',
            *_trained(trained),
        ]
    return lines


def write_page(
    out: Path, tables: Mapping[str, Rows], cifar10: Mapping[str, Rows]
) -> None:
    """Write ``convert_vit.md``.

    Args:
        out: Folder of the page.
        tables: Rows of the tables by name, see ``FIELDS`` of ``_convert_vit``.
        cifar10: Those of the part on CIFAR-10.
    """
    lines = ['# DeiT-Tiny converted: accuracy on Imagenette', '']
    if tables['before']:
        lines += _imagenette(tables)
    lines += _cifar10(cifar10)
    if tables['latency']:
        lines += [
            '## Time of one image',
            '',
            'Median processor time of five runs of a fully converted DeiT-Tiny on one',
            'thread of a shared core, in milliseconds.',
            '',
            *_table(
                ('model', 'pixels', 'ms'),
                (
                    (row['model'], row['pixels'], f'{float(row["milliseconds"]):.0f}')
                    for row in tables['latency']
                ),
            ),
        ]
    (out / 'convert_vit.md').write_text('\n'.join(lines).rstrip() + '\n')
