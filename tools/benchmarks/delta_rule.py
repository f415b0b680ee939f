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

from _race_options import race_parser
from _tool import tool

CASES = ('gdn', 'kda')


def parse_args() -> argparse.Namespace:
    slow = 'all but the native kernel'
    return race_parser(__doc__, CASES, 9, slow).parse_args()


@tool(parse_args)
def main(args: argparse.Namespace) -> int:
    import _delta_rule

    return _delta_rule.run(args)


if __name__ == '__main__':
    sys.exit(main())
