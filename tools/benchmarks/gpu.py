"""Run everything that needs a GPU, within fifteen minutes, and write one table.

The parts, in this order: values of the Triton kernels against float64, with memory that
was filled with NaN; speed of the selective scan beside ``mamba_ssm`` where that is
installed; four directions in one launch beside four permuted copies; values and speed
of the WKV, of the causal convolution, of SSD and of the gated delta rule, the last two
beside ``mamba_ssm`` and ``fla`` where those are installed; values and speed of the
steps that decode one token; training steps of vision
backbones under bf16 autocast, alone beside DeiT-T's and with the distiller; decoding,
by ``decode.py``.

Every result is written at once. A second run with the same folder continues: what is
done is not repeated, and what failed or had no backend is tried again. Results of
another card, PyTorch, commit, or of a dry run need another folder.
The predictions beside the results were written before any run.
"""

import argparse

from _tool import Parser, out_file, out_folder, positive, tool

PARTS = ('values', 'scan', 'directions', 'mixing', 'steps', 'training', 'decode')


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument(
        'folder', type=out_folder, help='for the results, to be continued'
    )
    parser.add_argument('--parts', nargs='+', choices=PARTS, default=list(PARTS))
    parser.add_argument(
        '--minutes',
        type=positive,
        default=14,
        help='after which nothing more is started, default 14',
    )
    parser.add_argument(
        '--markdown',
        type=out_file,
        help='also write the table here, between its two marks',
    )
    parser.add_argument(
        '--dry-run',
        action='store_true',
        help='run every part with tiny sizes on the CPU, to see that it runs',
    )
    return parser.parse_args()


@tool(parse_args)
def main(args: argparse.Namespace) -> None:
    import _gpu

    _gpu.run(args)


if __name__ == '__main__':
    main()
