"""Compare ways of distilling a ViT into a PlainMamba, with seeds.

The teacher is DeiT-Tiny and the images are Imagenette's; the part cifar10 repeats what
decides on CIFAR-10, under the teacher that cifar10_teacher.py trains.

Every run is a process of its own with its own folder. A finished run is a row of a
table and is not trained again, an interrupted one goes on, so the command can be
stopped and repeated; the page and its pictures are made from whatever rows there are.

docs/data.md says where images and teacher come from.
"""

import argparse
import os
from pathlib import Path

from _tool import EachOnce, Parser, natural, out_folder, positive, seed_number, tool

PARTS = (
    *('decisive', 'terms', 'schedules', 'fewer', 'subclone', 'inherited'),
    *('rivals', 'layers', 'families', 'cifar10', 'sweep'),
)

SEEDS = (0, 1, 2)


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument(
        '--data',
        type=Path,
        default=Path(os.environ.get('MMTRANSMAMBA_DATA', 'data')),
        help='folder with imagenette96, cifar10 and deit_tiny; default: '
        'MMTRANSMAMBA_DATA, or data',
    )
    parser.add_argument('--work-dir', type=out_folder, default='work_dirs/vision')
    parser.add_argument(
        '--out',
        type=out_folder,
        default='docs/results',
        help='gets vision.md, and the tables and pictures in vision/',
    )
    parser.add_argument(
        '--seeds', nargs='+', action=EachOnce, type=seed_number, default=list(SEEDS)
    )
    parser.add_argument(
        '--parts',
        nargs='+',
        action=EachOnce,
        choices=PARTS,
        default=list(PARTS),
        help='which comparisons, in which order; default: all',
    )
    parser.add_argument(
        '--max-runs', type=natural, help='stop after so many runs; 0 writes the page'
    )
    parser.add_argument(
        '--threads', type=positive, default=1, help='of each run; one at a time'
    )
    parser.add_argument('--one', help=argparse.SUPPRESS)
    return parser.parse_args()


@tool(parse_args, 'interrupted; the same command goes on with what is not trained yet')
def main(args: argparse.Namespace) -> None:
    import _vision_runs
    from _vision_plan import plan

    whole = plan(list(PARTS), sorted({*SEEDS, *args.seeds}))
    _vision_runs.run(args, len(whole))


if __name__ == '__main__':
    main()
