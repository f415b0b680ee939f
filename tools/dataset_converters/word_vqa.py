"""Write the processor and the untrained language model of a small VQA set.

    python tools/dataset_converters/word_vqa.py shapes data/shapes_vqa
    python tools/dataset_converters/word_vqa.py easy_vqa data/easy_vqa/start \
        --data-root data/easy_vqa

The generated shapes need no data; easy-VQA's vocabulary is that of its training set.
"""

import argparse
from pathlib import Path

from _tool import Parser, out_folder, seed_number, tool


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument('data', choices=['shapes', 'easy_vqa'])
    parser.add_argument('out', type=out_folder, help='folder to write')
    parser.add_argument('--data-root', type=Path, default=Path('data/easy_vqa'))
    parser.add_argument(
        '--seed', type=seed_number, default=0, help='of the random weights'
    )
    return parser.parse_args()


@tool(parse_args)
def main(args: argparse.Namespace) -> None:
    from mmtransmamba.datasets.easy_vqa import words_of
    from mmtransmamba.datasets.shapes_vqa import words
    from mmtransmamba.datasets.vqa_start import write_start

    if args.data == 'shapes':
        vocabulary, sides = words(), dict(image_size=36, patch_size=12)
    else:
        vocabulary = words_of(args.data_root)
        sides = dict(image_size=64, patch_size=16)
    write_start(args.out, vocabulary, **sides, seed=args.seed)
    print(f'Processor and untrained language model: {args.out}')


if __name__ == '__main__':
    main()
