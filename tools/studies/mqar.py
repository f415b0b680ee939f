"""Convert an attention model that has learned recall, and see what its students recall.

A Transformer of two layers learns multi-query associative recall. All of its attention
is replaced by a mixer, and the student is distilled with three learning rates. Sizes of
heads set the sizes of the states; the window keeps as many numbers as a linear mixer.

A finished run is a row of a table and is not trained again, so the command can be
stopped and repeated. The page is made from whatever rows there are.
"""

import argparse

from _tool import EachOnce, Parser, natural, out_folder, positive, seed_number, tool


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument('--work-dir', type=out_folder, default='work_dirs/mqar')
    parser.add_argument(
        '--out',
        type=out_folder,
        default='docs/results',
        help='gets mqar.md, and the tables in mqar/',
    )
    parser.add_argument(
        '--seeds', nargs='+', action=EachOnce, type=seed_number, default=[0, 1, 2]
    )
    parser.add_argument(
        '--head-dims',
        nargs='+',
        action=EachOnce,
        type=positive,
        default=[16],
        help='in order',
    )
    parser.add_argument(
        '--teacher-steps', type=positive, default=2000, help='at most, of a teacher'
    )
    parser.add_argument('--steps', type=positive, default=300, help='of a student')
    parser.add_argument(
        '--max-runs', type=natural, help='stop after so many; 0 writes the page'
    )
    parser.add_argument('--threads', type=positive, default=1)
    return parser.parse_args()


@tool(parse_args, 'interrupted; the same command goes on with what is not done yet')
def main(args: argparse.Namespace) -> None:
    import _mqar_runs

    _mqar_runs.run(args)


if __name__ == '__main__':
    main()
