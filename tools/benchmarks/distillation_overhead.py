"""Measure the cost of distillation beyond running teacher and student.

Times, alternately and repeatedly, (a) the teacher's forward pass, (b) forward and
backward of the student on its task alone and (c) a full distillation step. Reports the
share of (c) that is neither (a) nor (b): taps, aligners, losses, weights.
"""

import argparse
from pathlib import Path

from _tool import KeyValues, Parser, positive, tool

ROOT = Path(__file__).resolve().parents[2]


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument(
        '--config',
        default=ROOT
        / 'configs/image_classification/transmamba/trans-plain-mamba-t_1xb128_in1k.py',
        help='config whose model is a MultiDirectionDistiller',
    )
    parser.add_argument('--batch-size', type=positive, default=8)
    parser.add_argument('--image-size', type=positive, default=224)
    parser.add_argument('--repeat', type=positive, default=9)
    parser.add_argument('--device', help='default: the GPU if there is one')
    parser.add_argument(
        '--cfg-options', nargs='+', action=KeyValues, help='override the config'
    )
    return parser.parse_args()


@tool(parse_args)
def main(args: argparse.Namespace) -> None:
    import _distillation_overhead

    _distillation_overhead.run(args)


if __name__ == '__main__':
    main()
