"""Find the sizes into which the Triton kernels divide their work, on this GPU.

The kernels take these sizes from tables in the package (``ops/*/triton_plan.py``),
whose numbers are predictions. For one size after another, this script times forward and
backward passes with half, twice and four times the value, and keeps the value with the
least geometric mean over the shapes. It prints all times and the lines to write into
the tables; it changes no file.
"""

import argparse

from _tool import Parser, positive, tool


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument(
        '--rounds', type=positive, default=2, help='times through all sizes, default 2'
    )
    parser.add_argument(
        '--dry-run',
        action='store_true',
        help='run with tiny sizes on the CPU, to see that it runs',
    )
    return parser.parse_args()


@tool(parse_args)
def main(args: argparse.Namespace) -> None:
    import _tune_triton

    _tune_triton.run(args)


if __name__ == '__main__':
    main()
