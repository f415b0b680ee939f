"""Latency of exported vision models compared with PyTorch, for one image.

Every model is exported to each format and loaded again. Then all take turns, so that a
change of the machine's load affects all of them. The table gives medians in
milliseconds, and for the ONNX file its size and number of nodes, including those inside
loops.
"""

import argparse

from _tool import Parser, out_file, positive, tool

MODELS = (
    'PlainMamba-L1',
    'Vim-Ti',
    'VMamba-T',
    'VideoMamba-Ti',
    'VRWKV-T',
    'VRWKV6-T',
)
COLUMNS = (
    'ONNX',
    'TorchScript',
    'TorchScript native',
    'torch.export',
    'torch.export native',
)


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument(
        '--models', nargs='+', choices=MODELS, default=MODELS, help='default: all'
    )
    parser.add_argument(
        '--formats',
        nargs='+',
        choices=COLUMNS,
        help='columns; default: all',
    )
    parser.add_argument('--image-size', type=positive, default=224)
    parser.add_argument('--repeat', type=positive, default=9)
    parser.add_argument('--threads', type=positive, help='default: as torch decides')
    parser.add_argument('--json', type=out_file, help='write the rows to this file')
    return parser.parse_args()


@tool(parse_args)
def main(args: argparse.Namespace) -> None:
    import _export

    _export.run(args)


if __name__ == '__main__':
    main()
