"""Prefill and decode speed, and memory, of a Transformer, its hybrid and pure Mamba.

Every model runs in its own process, so that memory is counted separately. On a CPU, the
processes of one context length take turns, so that other load affects all of them
equally. The weights are random, because speed does not depend on them. On the CPU the
models are small; with --size llama-3.2-1b on a GPU, contexts up to 131072 tokens give
the comparison that mmMamba reports.
"""

import argparse

from _tool import Parser, out_file, positive, tool

SIZES = ('tiny', 'small', 'llama-3.2-1b')
MODELS = ('teacher', 'hybrid', 'pure')
STEPS = ('eager', 'compiled')
MARKS = '<!-- begin figures -->', '<!-- end figures -->'


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument('--size', choices=SIZES, default='tiny')
    parser.add_argument('--models', nargs='+', choices=MODELS, default=list(MODELS))
    parser.add_argument(
        '--contexts', nargs='+', type=positive, default=[512, 1024, 2048, 4096, 8192]
    )
    parser.add_argument('--new-tokens', type=positive, default=32)
    parser.add_argument('--batch-size', type=positive, default=1)
    parser.add_argument('--repeats', type=positive, default=3, help='medians are shown')
    parser.add_argument('--device', help='default: the GPU if there is one')
    parser.add_argument('--dtype', choices=('float32', 'bfloat16'))
    parser.add_argument(
        '--steps',
        nargs='+',
        choices=STEPS,
        default=['eager'],
        help="'compiled': by torch.compile, with a StaticCache",
    )
    parser.add_argument('--threads', type=positive, help="by default PyTorch's choice")
    parser.add_argument('--json', type=out_file, help='also write the figures here')
    parser.add_argument(
        '--markdown',
        type=out_file,
        help='also write them here as tables; in a file that has the lines '
        f'{" and ".join(MARKS)}, between them',
    )
    parser.add_argument('--one', help=argparse.SUPPRESS)
    return parser.parse_args()


@tool(parse_args)
def main(args: argparse.Namespace) -> None:
    import _decode

    _decode.run(args)


if __name__ == '__main__':
    main()
