"""Write the processor and the untrained language model of a small VQA set.

    python tools/dataset_converters/word_vqa.py shapes data/shapes_vqa
    python tools/dataset_converters/word_vqa.py easy_vqa data/easy_vqa/start \
        --data-root data/easy_vqa

The generated shapes need no data; easy-VQA's vocabulary is that of its training set.
"""

import argparse
from pathlib import Path

from mmtransmamba.datasets.easy_vqa import words_of
from mmtransmamba.datasets.shapes_vqa import words
from mmtransmamba.datasets.vqa_start import write_start


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('data', choices=['shapes', 'easy_vqa'])
    parser.add_argument('out', type=Path, help='folder to write')
    parser.add_argument('--data-root', type=Path, default=Path('data/easy_vqa'))
    parser.add_argument('--seed', type=int, default=0, help='of the random weights')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.data == 'shapes':
        write_start(args.out, words(), image_size=36, patch_size=12, seed=args.seed)
    else:
        write_start(
            args.out,
            words_of(args.data_root),
            image_size=64,
            patch_size=16,
            seed=args.seed,
        )
    print(f'Processor and untrained language model: {args.out}')


if __name__ == '__main__':
    main()
