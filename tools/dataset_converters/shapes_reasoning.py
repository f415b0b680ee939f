"""Draw pictures of shapes, with questions that require reasoning.

Writes OUT/train.jsonl and OUT/val.jsonl in LLaVA-CoT's format, their images, and to
OUT/processor the processor of a model that reads characters.
"""

import argparse

from _tool import Parser, natural, out_folder, positive, seed_number, tool


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument('--out', type=out_folder, default='data/shapes_reasoning')
    parser.add_argument('--train', type=positive, default=2_000, help='default: 2000')
    parser.add_argument('--val', type=natural, default=200, help='default: 200')
    parser.add_argument('--seed', type=seed_number, default=0)
    return parser.parse_args()


@tool(parse_args)
def main(args: argparse.Namespace) -> None:
    from mmtransmamba.datasets.character_processor import character_processor
    from mmtransmamba.datasets.shapes_reasoning import write_shapes_reasoning

    counts = dict(train=args.train, val=args.val)
    write_shapes_reasoning(args.out, counts, args.seed, side=16)
    character_processor(16, 8).save_pretrained(args.out / 'processor')
    print(f'{args.train:,} + {args.val:,} questions are in {args.out}')


if __name__ == '__main__':
    main()
