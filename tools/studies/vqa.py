"""Small LLaVAs and their students on questions about pictures, with seeds.

Each seed of each set is a process of its own: tower, teacher, every student through
mmMamba's three stages, and the control from the labels alone. Finished trainings are
not repeated, an interrupted one goes on, so the command can be stopped and started
again. docs/data.md says where easy-VQA comes from; the shapes are generated.
"""

import argparse
import os
from pathlib import Path

from _tool import EachOnce, Parser, natural, out_folder, positive, seed_number, tool

SETS = ('shapes', 'easy_vqa')
STUDENTS = ('hybrid', 'pure', 'pure_gdn')


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument(
        '--data',
        type=Path,
        default=Path(os.environ.get('MMTRANSMAMBA_DATA', 'data')),
        help='folder with easy_vqa; default: MMTRANSMAMBA_DATA, or data',
    )
    parser.add_argument('--work-dir', type=out_folder, default='work_dirs/vqa')
    parser.add_argument(
        '--out',
        type=out_folder,
        default='docs/results',
        help='gets vqa_seeds.md, and the table in vqa/',
    )
    parser.add_argument(
        '--sets', nargs='+', action=EachOnce, choices=SETS, default=list(SETS)
    )
    parser.add_argument(
        '--seeds', nargs='+', action=EachOnce, type=seed_number, default=[0, 1, 2]
    )
    parser.add_argument(
        '--students',
        nargs='+',
        action=EachOnce,
        choices=STUDENTS,
        default=list(STUDENTS),
    )
    parser.add_argument(
        '--max-runs', type=natural, help='stop after so many; 0 writes the page'
    )
    parser.add_argument('--threads', type=positive, default=1, help='of each run')
    parser.add_argument('--one', help=argparse.SUPPRESS)
    return parser.parse_args()


@tool(parse_args, 'interrupted; the same command goes on with what is not done yet')
def main(args: argparse.Namespace) -> None:
    import _vqa_runs

    _vqa_runs.run(args)


if __name__ == '__main__':
    main()
