"""The page of the study of ``convert_vit.py``, from the rows that there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

Rows = Sequence[Mapping[str, str]]

_SETTING = """\
Teacher: DeiT-Tiny of ImageNet-1k (12 layers, 3 heads, 197 tokens), its logits cut to
the ten classes of Imagenette. Validation images are enlarged from 96 to 224 pixels.
Mixers have the attention's v, k, q and output projection; with `scratch` they have
nothing from it. `calibrate` fits each mixer alone to the attention, on training images
without labels. All other weights are the teacher's in every row, and nothing was
trained on a task. Mixers from `scratch` have almost closed gates, so their layers
nearly keep their input: these rows show what the model does without the attention.
Layers are spread evenly. One seed; with {images} images, the
standard error of an accuracy is up to {error:.1f} points.

The tables are written by

```bash
MMTRANSMAMBA_DATA=data python tools/studies/convert_vit.py
```

## Before training
"""


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    rows = [head, ['---'] * len(head), *lines]
    return ['| ' + ' | '.join(row) + ' |' for row in rows] + ['']


def write_page(out: Path, tables: Mapping[str, Rows]) -> None:
    """Write ``convert_vit.md``.

    Args:
        out: Folder of the page.
        tables: Rows of the tables by name, see ``FIELDS`` of ``_convert_vit``.
    """
    before = [row for row in tables['before'] if row['mixer'] != 'teacher']
    teacher = next(row for row in tables['before'] if row['mixer'] == 'teacher')
    images = int(teacher['images'])
    lines = [
        '# DeiT-Tiny converted: accuracy on Imagenette',
        '',
        _SETTING.format(images=images, error=50 / images**0.5),
        f'The teacher is right in {float(teacher["top1"]):.1f} % of the images.',
        '',
        *_table(
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
                for row in before
            ),
        ),
    ]
    if tables['latency']:
        lines += [
            '## Time of one image',
            '',
            'Median processor time of five runs of a fully converted model on one',
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
