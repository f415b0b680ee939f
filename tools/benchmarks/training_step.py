"""Time a whole training step of vision students with different scans.

A step is forward, cross-entropy, backward and AdamW of Vim-Ti and VMamba-T (v0) on four
images of 224 pixels, float32 on the CPU. These run side by side, with the same weights:

* ``native``: the compiled kernels;
* ``reference``: the same model on the plain PyTorch backend, whose scan is also a loop
  over the steps, but has a cheap gradient;
* ``transformers``: the same model with the step-by-step scan of the transformers
  library, its own function, instead of ours. The cost of its gradient grows with the
  square of the length (hours for VMamba's first stage), so a whole step is not run.
  Each distinct scan is timed separately, on at most ``--scan-steps`` of its steps, and
  multiplied by length and number of scans; the native step without its scans is
  added. That is a lower bound.

Contenders take turns, so that a change of the machine's load affects all of them; the
table gives medians. The share of the scan is measured by the profiler. The exit status
is 1 if the native step is not ten times as fast as the reference, which needs more than
10 GB for VMamba-T's backward pass.
"""

import argparse
import sys

from _tool import Parser, out_file, positive, tool

STUDENTS = ('Vim-Ti', 'VMamba-T')


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument(
        '--models',
        nargs='+',
        choices=STUDENTS,
        default=STUDENTS,
        help='default: all',
    )
    parser.add_argument('--batch-size', type=positive, default=4)
    parser.add_argument('--image-size', type=positive, default=224)
    parser.add_argument(
        '--repeat', type=positive, default=7, help='native runs, default 7'
    )
    parser.add_argument(
        '--slow-repeat', type=positive, default=1, help='runs of the others, default 1'
    )
    parser.add_argument(
        '--scan-steps',
        type=positive,
        default=197,
        help="most steps of a scan of transformers' that are run, default 197",
    )
    parser.add_argument('--no-transformers', action='store_true')
    parser.add_argument('--threads', type=positive, help='default: as torch decides')
    parser.add_argument('--json', type=out_file, help='write the rows to this file')
    return parser.parse_args()


@tool(parse_args)
def main(args: argparse.Namespace) -> int:
    import _training_step

    return _training_step.run(args)


if __name__ == '__main__':
    sys.exit(main())
