"""Write one HTML page about a training run that can be viewed without a network.

report.py WORK_DIR                  # writes WORK_DIR/report.html
report.py WORK_DIR --out FILE.html

The page has the final results, the curves, the layer weights of a distillation, the
inherited weights, pictures, the config and the environment, as far as the folder
contains them. Folders of converted models are supported too. Nothing in the folder is
executed.
"""

import argparse
from pathlib import Path

from _tool import Parser, out_file, tool


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument('work_dir', type=Path, help="the run's folder")
    parser.add_argument(
        '--out',
        type=out_file,
        metavar='FILE',
        help='page to write (WORK_DIR/report.html)',
    )
    return parser.parse_args()


@tool(parse_args)
def main(args: argparse.Namespace) -> None:
    from mmtransmamba.visualization.report import write_report

    print(write_report(args.work_dir, args.out))


if __name__ == '__main__':
    main()
