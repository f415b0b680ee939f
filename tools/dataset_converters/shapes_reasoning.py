"""Draw pictures of shapes, with questions that are answered by reasoning.

Writes OUT/train.jsonl and OUT/val.jsonl in LLaVA-CoT's format, their images, and in
OUT/processor the processor of a model that reads characters.
"""

import argparse
import sys
from pathlib import Path

# A clean checkout needs no installation of the package itself.
_ROOT = Path(__file__).absolute().parent.parent.parent
if (_ROOT / 'mmtransmamba' / '__init__.py').is_file():
    sys.path.insert(0, str(_ROOT))

import mmtransmamba  # noqa: F401, I001  (first: it bridges the imports that follow)

from mmtransmamba.datasets.character_processor import character_processor
from mmtransmamba.datasets.shapes_reasoning import write_shapes_reasoning


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', type=Path, default=Path('data/shapes_reasoning'))
    parser.add_argument('--train', type=int, default=2_000, help='default: 2000')
    parser.add_argument('--val', type=int, default=200, help='default: 200')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    try:
        write_shapes_reasoning(
            args.out, dict(train=args.train, val=args.val), args.seed, side=16
        )
    except ValueError as error:
        sys.exit(f'error: {error}')
    character_processor(16, 8).save_pretrained(args.out / 'processor')
    print(f'{args.train:,} + {args.val:,} questions are in {args.out}')


if __name__ == '__main__':
    main()
