"""Train the teacher of the study on CIFAR-10, and keep its weights in half precision.

It starts from the first six blocks of DeiT-Tiny. Patches of 4 pixels take the place of
those of 16, as if each image were enlarged four times without smoothing, and positions
are resampled. An interrupted training goes on. docs/data.md says where images and
DeiT-Tiny come from.
"""

import argparse
import os
from pathlib import Path

from _tool import Parser, out_file, out_folder, positive, tool


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument(
        '--data',
        type=Path,
        default=Path(os.environ.get('MMTRANSMAMBA_DATA', 'data')),
        help='folder with cifar10 and deit_tiny; default: MMTRANSMAMBA_DATA, or data',
    )
    parser.add_argument(
        '--work-dir', type=out_folder, default='work_dirs/cifar10_teacher'
    )
    parser.add_argument(
        '--out',
        type=out_file,
        default='docs/results/cifar10/teacher.safetensors',
        help='file of the trained weights',
    )
    parser.add_argument('--threads', type=positive, default=1)
    return parser.parse_args()


@tool(parse_args, 'interrupted; the same command goes on from the last epoch')
def main(args: argparse.Namespace) -> None:
    import _cifar10_teacher

    _cifar10_teacher.run(args)


if __name__ == '__main__':
    main()
