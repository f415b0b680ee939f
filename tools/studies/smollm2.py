"""Convert SmolLM2-135M-Instruct by several mixers and initialisations, at equal tokens.

Every run is a process of its own with its own folder. A finished run is a row of a
table and is not trained again, an interrupted one goes on from its last checkpoint, so
the command can be stopped and repeated. The page is made from whatever rows there are.

docs/data.md says where teacher and text come from; tools/convert_gguf.py makes the
teacher's folder of the GGUF file.
"""

import argparse
from pathlib import Path

from _tool import EachOnce, Parser, natural, out_folder, positive, seed_number, tool

PARTS = ('decisive', 'recall', 'long', 'shares', 'decode')


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument('teacher', type=Path, help='folder of the model')
    parser.add_argument(
        '--data', type=Path, required=True, help='folder with text and lm_eval'
    )
    parser.add_argument('--work-dir', type=out_folder, default='work_dirs/smollm2')
    parser.add_argument(
        '--out',
        type=out_folder,
        default='docs/results',
        help='gets smollm2.md, and the tables in smollm2/',
    )
    parser.add_argument('--seed', type=seed_number, default=0)
    parser.add_argument(
        '--parts',
        nargs='+',
        action=EachOnce,
        choices=PARTS,
        default=list(PARTS),
        help='in this order',
    )
    parser.add_argument(
        '--tokens',
        type=positive,
        default=40960,
        help='of a run, those of its calibration included; the part long takes 4 and '
        '26 times as many',
    )
    parser.add_argument(
        '--limit', type=positive, default=32, help='questions of each benchmark'
    )
    parser.add_argument(
        '--max-runs', type=natural, help='stop after so many; 0 writes the page'
    )
    parser.add_argument('--threads', type=positive, default=1, help='of each run')
    parser.add_argument('--one', help=argparse.SUPPRESS)
    return parser.parse_args()


@tool(parse_args, 'interrupted; the same command goes on with what is not done yet')
def main(args: argparse.Namespace) -> None:
    import _smollm2_runs
    from _smollm2_plan import plan

    _smollm2_runs.run(args, plan(list(PARTS)))


if __name__ == '__main__':
    main()
