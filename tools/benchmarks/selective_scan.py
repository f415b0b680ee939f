"""Time the selective scan's implementations side by side, and check its targets.

All cases are float32 with N = 16 on the CPU unless stated otherwise:

* ``image``: (B, D, L) = (16, 384, 196), the native kernel against mambapy's ``pscan``,
  the reference backend and the step-by-step loop of the slow paths in use;
* ``long``: (1, 768, 16384), against ``pscan``;
* ``directions``: four PlainMamba scans of one image batch, read through indices in the
  kernel, against permuted copies and one plain native scan each;
* ``layer``: forward and backward of a whole PlainMamba mixer, to see the kernel among
  the other operators and their threads.

Contenders take turns, so that a change of the machine's load affects all of them; the
table gives medians. The exit status is 1 if a target is missed.
"""

import argparse
import sys

from _race_options import race_parser
from _tool import tool

CASES = ('image', 'long', 'directions', 'layer')


def parse_args() -> argparse.Namespace:
    slow = 'pscan, reference and loop'
    return race_parser(__doc__, CASES, 15, slow).parse_args()


@tool(parse_args)
def main(args: argparse.Namespace) -> int:
    import _selective_scan

    return _selective_scan.run(args)


if __name__ == '__main__':
    sys.exit(main())
