"""Draw scenes of the validation set with what segmentors see in them.

python projects/segmentation/pictures.py WORK_DIR... --out FILE.png
"""

import argparse
import sys
from pathlib import Path

from mmtransmamba.utils.numbers import positive


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('runs', nargs='+', type=Path, help='folders of trainings')
    parser.add_argument('--out', required=True, type=Path, help='the PNG to write')
    parser.add_argument(
        '--scenes', type=positive, default=6, help='how many; default: 6'
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    # Python finds modules beside a script, and this one's package is above it.
    sys.path.insert(0, str(Path(__file__).absolute().parents[2]))
    import numpy as np
    import torch

    import mmtransmamba
    from mmtransmamba.visualization.picture_grid import save_picture_grid
    from projects.segmentation.datasets import ShapeScenes
    from projects.segmentation.shapes import PALETTE

    pipeline = [dict(type='mmseg.PackSegInputs')]
    scenes = ShapeScenes('val', args.scenes, pipeline=pipeline)
    samples = [scenes[i] for i in range(args.scenes)]
    batch = {key: [s[key] for s in samples] for key in ('inputs', 'data_samples')}
    colours = np.array(PALETTE, np.uint8)

    columns = {
        'picture': [s['inputs'].permute(1, 2, 0).numpy() for s in samples],
        'labels': [colours[s['data_samples'].gt_sem_seg.data[0]] for s in samples],
    }
    for run in args.runs:
        model = mmtransmamba.load(run).eval()
        with torch.no_grad():
            found = model.test_step(dict(batch))
        columns[run.name] = [colours[s.pred_sem_seg.data[0].numpy()] for s in found]

    def draw(axes, picture):
        axes.imshow(picture, interpolation='nearest')

    save_picture_grid(args.out, columns, draw, cell=(1.8, 1.6), dpi=80)
    print(f'Pictures: {args.out}')


if __name__ == '__main__':
    main(parse_args())
