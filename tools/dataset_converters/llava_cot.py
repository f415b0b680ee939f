"""Split LLaVA-CoT's train.jsonl into parts for teacher, student and validation.

TransMamba fine-tunes the teacher on 80K samples and distils the student on 40K. Rows
with a response that is not well-formed are left out, and with --images also rows
without their image.
"""

import argparse
from pathlib import Path

from _tool import Parser, natural, out_folder, seed_number, tool


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument('annotations', type=Path, help='train.jsonl of LLaVA-CoT-100k')
    parser.add_argument('--images', type=Path, help='folder of the images')
    parser.add_argument(
        '--teacher', type=natural, default=80_000, help='default: 80000'
    )
    parser.add_argument(
        '--student', type=natural, default=40_000, help='default: 40000'
    )
    parser.add_argument('--val', type=natural, default=1_000, help='default: 1000')
    parser.add_argument('--seed', type=seed_number, default=0)
    parser.add_argument('--out', type=out_folder, default='data/llava_cot')
    return parser.parse_args()


@tool(parse_args)
def main(args: argparse.Namespace) -> None:
    from mmtransmamba.datasets.llava_cot import split_llava_cot

    sizes = {name: getattr(args, name) for name in ('teacher', 'student', 'val')}
    print(split_llava_cot(args.annotations, args.out, sizes, args.images, args.seed))
    print(f'written to {args.out}')


if __name__ == '__main__':
    main()
