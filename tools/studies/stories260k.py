"""Repeat the papers' ablations on a Llama of 260K parameters that generates stories.

Every stage of every student is a separate training (configs/language/stories260k) in
its own folder. Perplexity and the KL divergence per token from the teacher are computed
here, on 400 stories that no student has seen. Students with a row in the table are not
trained again, and stages that are finished are not repeated, so the command can be
stopped and started again, with the table even on another machine.

docs/data.md explains how to get the teacher and its stories.
"""

import argparse
from pathlib import Path

from _tool import EachOnce, Parser, out_folder, positive, seed_number, tool

TABLES = (
    *('share', 'stages', 'inits', 'positions', 'recipes', 'starts', 'mixers'),
    *('norms', 'heads', 'trained_heads'),
)


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument(
        '--data',
        type=Path,
        default=Path('data/stories260k'),
        help='folder of the teacher and its stories',
    )
    parser.add_argument('--work-dir', type=out_folder, default='work_dirs/stories260k')
    parser.add_argument('--iters', type=positive, default=300, help='per stage')
    parser.add_argument(
        '--jobs', type=positive, default=2, help='runs at the same time'
    )
    parser.add_argument(
        '--seeds', nargs='+', action=EachOnce, type=seed_number, default=[0, 1, 2]
    )
    parser.add_argument(
        '--only',
        nargs='+',
        choices=TABLES,
        default=TABLES[:4],
        help='tables to make; default: the first four',
    )
    parser.add_argument(
        '--out',
        type=out_folder,
        help='gets the figures of each student as it finishes (runs.csv), and the '
        'tables of this command (tables.md); default: the work dir',
    )
    return parser.parse_args()


@tool(parse_args, 'interrupted; the same command goes on with what is not trained yet')
def main(args: argparse.Namespace) -> None:
    import _stories260k

    _stories260k.run(args)


if __name__ == '__main__':
    main()
