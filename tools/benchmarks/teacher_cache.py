"""Measure what a recorded teacher saves in every training step.

Times steps (forward and backward) of a language distiller and of a vision distiller,
each in turn with a teacher that runs and with its recorded outputs, and prints the
medians of the processor time, which other programs on the machine hardly change. All
weights are random.
"""

import argparse
from pathlib import Path

from _tool import KeyValues, Parser, positive, tool

ROOT = Path(__file__).resolve().parents[2]
CASES = ('language', 'images')


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument('--cases', nargs='+', choices=CASES, default=list(CASES))
    parser.add_argument('--repeat', type=positive, default=5, help='steps of each kind')
    parser.add_argument('--batch-size', type=positive, default=4)
    parser.add_argument(
        '--tokens', type=positive, default=256, help='of a row (language)'
    )
    parser.add_argument(
        '--k', type=positive, default=64, help='recorded tokens a position (language)'
    )
    parser.add_argument(
        '--config',
        default=ROOT
        / 'configs/image_classification/transmamba/trans-plain-mamba-t_1xb128_in1k.py',
        help='config whose model is a MultiDirectionDistiller (images)',
    )
    parser.add_argument('--image-size', type=positive, default=224)
    parser.add_argument(
        '--cfg-options', nargs='+', action=KeyValues, help='override the config'
    )
    return parser.parse_args()


@tool(parse_args)
def main(args: argparse.Namespace) -> None:
    import _teacher_cache

    _teacher_cache.run(args)


if __name__ == '__main__':
    main()
