"""Draw blood cells of the validation set with what detectors find in them.

python projects/detection/pictures.py WORK_DIR... --out FILE.png
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmtransmamba.utils.numbers import positive, real

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

COLOURS = ('tab:red', 'tab:blue', 'gold')
"""Of red cells, white cells and platelets."""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('runs', nargs='+', type=Path, help='folders of trainings')
    parser.add_argument('--out', required=True, type=Path, help='the PNG to write')
    parser.add_argument(
        '--pictures', type=positive, default=4, help='how many; default: 4'
    )
    parser.add_argument(
        '--score',
        type=real(0, 1),
        default=0.3,
        help='confidence from which a box is drawn; default: 0.3',
    )
    return parser.parse_args()


def draw(axes: Axes, entry: tuple[Any, tuple[Tensor, Tensor]]) -> None:
    """Draw a picture with boxes ``[N, 4]`` (left, top, right, bottom) and labels."""
    from matplotlib.patches import Rectangle

    picture, (boxes, labels) = entry
    axes.imshow(picture)
    for (left, top, right, bottom), label in zip(
        boxes.tolist(), labels.tolist(), strict=True
    ):
        box = Rectangle((left, top), right - left, bottom - top, fill=False)
        box.set(linewidth=0.8, edgecolor=COLOURS[label])
        axes.add_patch(box)


def main(args: argparse.Namespace) -> None:
    # Python finds modules beside a script, and this one's package is above it.
    root = Path(__file__).absolute().parents[2]
    sys.path.insert(0, str(root))
    import torch
    from mmengine.registry import DefaultScope

    import mmtransmamba
    from mmtransmamba.apis.configs import read_config
    from mmtransmamba.registry import DATASETS
    from mmtransmamba.visualization.picture_grid import save_picture_grid

    config = read_config(Path(__file__).parent / 'configs/vmamba-faster-rcnn_bccd.py')
    with DefaultScope.overwrite_default_scope('mmdet'):
        cells = DATASETS.build(config.val_dataloader.dataset)
    samples = [cells[i] for i in range(args.pictures)]
    batch = {key: [s[key] for s in samples] for key in ('inputs', 'data_samples')}
    # Boxes are in pixels of the files, the pictures are as detectors see them.
    factors = [s['data_samples'].scale_factor[0] for s in samples]

    # Files are read as BGR.
    pictures = [s['inputs'].flip(0).permute(1, 2, 0).numpy() for s in samples]

    boxes = []
    for sample, factor in zip(samples, factors, strict=True):
        truth = sample['data_samples'].gt_instances
        boxes.append((truth.bboxes.tensor * factor, truth.labels))
    columns = {'labels': list(zip(pictures, boxes, strict=True))}
    for run in args.runs:
        model = mmtransmamba.load(run)
        with torch.no_grad():
            results = model.test_step(dict(batch))
        boxes = []
        for result, factor in zip(results, factors, strict=True):
            found = result.pred_instances
            found = found[found.scores >= args.score]
            boxes.append((found.bboxes * factor, found.labels))
        columns[run.name] = list(zip(pictures, boxes, strict=True))
    save_picture_grid(args.out, columns, draw, cell=(2.4, 1.85))
    print(f'Pictures: {args.out}')


if __name__ == '__main__':
    main(parse_args())
