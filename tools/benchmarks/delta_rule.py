"""Time the gated delta rule's implementations side by side, and check its target.

Forward and backward at batch 2, 2,048 steps, 8 heads of 64 channels, float32 on the
CPU, for one decay per head (``gdn``, Gated DeltaNet) and one per key channel (``kda``):
the native kernel, matrix products by chunks in plain PyTorch, the loop over the steps,
and for ``gdn`` transformers' fallback by chunks of 64. The native kernel is to be at
least 20 times as fast as the loop.

Contenders take turns, so that a change of the machine's load meets all of them; the
table gives medians. The exit status is 1 when the target is missed.
"""

import argparse
import sys

from _tool import Parser, positive, tool

CASES = ('gdn', 'kda')


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument(
        '--cases', nargs='+', choices=CASES, default=CASES, help='default: all'
    )
    parser.add_argument('--repeat', type=positive, default=9, help='runs, default 9')
    parser.add_argument(
        '--slow-repeat',
        type=positive,
        default=3,
        help='runs of all but the native kernel, default 3',
    )
    parser.add_argument('--threads', type=positive, help='default: as torch decides')
    return parser.parse_args()


@tool(parse_args)
def main(args: argparse.Namespace) -> int:
    import _delta_rule

    return _delta_rule.run(args)


if __name__ == '__main__':
    sys.exit(main())
