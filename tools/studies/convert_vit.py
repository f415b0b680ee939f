"""Measure what the conversion of DeiT-Tiny's attention costs on Imagenette.

Accuracy before any training for each mixer, initialisation and share of converted
layers; accuracy of calibrated hybrids after a short alignment and tuning; and the time
of one image. The part cifar10 repeats the first two with the teacher that
cifar10_teacher.py trains. Every measurement is a row of a table and is not made again,
so the command can be stopped and repeated; the page is made from whatever rows there
are.

docs/data.md says where images and teacher come from.
"""

import argparse
import os
from pathlib import Path

from _tool import EachOnce, Parser, out_folder, positive, real, seed_number, tool

PARTS = ('before', 'trained', 'latency', 'cifar10')
MIXERS = ('Mamba2', 'GatedDeltaNet')


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument(
        '--data',
        type=Path,
        default=Path(os.environ.get('MMTRANSMAMBA_DATA', 'data')),
        help='folder with imagenette96, deit_tiny and cifar10; default: '
        'MMTRANSMAMBA_DATA, or data',
    )
    parser.add_argument(
        '--work-dir',
        type=out_folder,
        default='work_dirs/convert_vit',
        help='gets the fitted models',
    )
    parser.add_argument(
        '--out',
        type=out_folder,
        default='docs/results',
        help='gets convert_vit.md, and the tables in convert_vit/',
    )
    parser.add_argument(
        '--parts', nargs='+', action=EachOnce, choices=PARTS, default=list(PARTS)
    )
    parser.add_argument(
        '--images',
        type=positive,
        default=200,
        help='of validation; ten times as many of CIFAR-10, which are smaller',
    )
    parser.add_argument(
        '--seeds',
        type=seed_number,
        nargs='+',
        action=EachOnce,
        default=[0],
        help='of the training, for the parts trained and cifar10',
    )
    parser.add_argument(
        '--mixers',
        nargs='+',
        action=EachOnce,
        choices=MIXERS,
        default=list(MIXERS),
        help='of the parts trained and cifar10',
    )
    parser.add_argument(
        '--ratios',
        nargs='+',
        action=EachOnce,
        type=real(above=0, most=1),
        default=[0.5, 1.0],
        help='of converted layers, for the parts trained and cifar10',
    )
    parser.add_argument(
        '--train-steps', type=positive, default=20, help='of each of the two stages'
    )
    parser.add_argument('--batch', type=positive, default=16, help='images in a step')
    parser.add_argument(
        '--page-only', action='store_true', help='write the page from existing rows'
    )
    parser.add_argument('--threads', type=positive, default=1)
    return parser.parse_args()


@tool(parse_args, 'interrupted; the same command goes on with what is not measured yet')
def main(args: argparse.Namespace) -> None:
    import _convert_vit

    _convert_vit.run(args)


if __name__ == '__main__':
    main()
