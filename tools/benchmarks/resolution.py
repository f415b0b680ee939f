"""Latency and memory of vision backbones against the resolution, beside DeiT.

Every model and size runs on one image, or on --batch-size of them, in a process of its
own, on the CPU. The figures are the processor time of a forward pass, which other load
on the machine hardly changes, and the peak of the memory beyond the weights. They are
written as a table, as CSV and as a picture. A size whose memory, at worst quadratic in
the number of tokens, may exceed --memory-limit is skipped. The weights are random,
because speed does not depend on them.
"""

import argparse

from _tool import Parser, out_folder, positive, real, tool

MODELS = ('PlainMamba-L1', 'Vim-T', 'VMamba-T', 'VRWKV-T', 'DeiT-T')
SIZES = (224, 384, 512, 768, 1024, 1248)
PATCH = 16


def side(text: str) -> int:
    """A side in pixels, of whole patches."""
    value = positive(text)
    if value % (2 * PATCH):
        raise argparse.ArgumentTypeError(
            f'{value} pixels are not a multiple of {2 * PATCH}'
        )
    return value


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument(
        '--out',
        type=out_folder,
        default='docs/results',
        help='folder of resolution.md, .csv and .png, default docs/results; a page '
        'that exists keeps its text outside the marks of the table',
    )
    parser.add_argument(
        '--models', nargs='+', choices=MODELS, default=MODELS, help='default: all'
    )
    parser.add_argument(
        '--sizes',
        nargs='+',
        type=side,
        default=SIZES,
        metavar='PIXELS',
        help=f'sides of the images, default {" ".join(map(str, SIZES))}',
    )
    parser.add_argument(
        '--compiled-sizes',
        nargs='*',
        type=side,
        default=(),
        metavar='PIXELS',
        help='sides at which compiled models are measured too, default none; each '
        'compilation takes about a minute',
    )
    parser.add_argument(
        '--repeats', type=positive, default=5, help='medians are shown, default 5'
    )
    parser.add_argument(
        '--seconds',
        type=real(above=0),
        default=4.0,
        help='no further repetition after this processor time, default 4',
    )
    parser.add_argument('--batch-size', type=positive, default=1)
    parser.add_argument('--threads', type=positive, default=1, help='default 1')
    parser.add_argument(
        '--memory-limit',
        type=real(above=0),
        default=6.0,
        help='GiB of one pass, default 6',
    )
    return parser.parse_args()


@tool(parse_args)
def main(args: argparse.Namespace) -> None:
    import _resolution

    _resolution.run(args)


if __name__ == '__main__':
    main()
