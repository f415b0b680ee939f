"""Choose the layers or heads that stay attention, by several methods side by side.

select_layers.py TEACHER --calibration text.txt --out OUT

OUT/METHOD.json is a ranking for `convert_lm.py --layers OUT/METHOD.json --ratio 0.5`
and for transfer_lm.py, OUT/heads-METHOD.json one of heads for the same options.
OUT/comparison.html shows the hybrids that follow from the rankings and from fixed
positions, on text and on synthetic recall, before any training.
"""

import argparse
import importlib
from pathlib import Path

from _tool import Parser, natural, out_folder, positive, real, seed_number, tool

from mmtransmamba.utils.choices import INITS, PROBES, RANKINGS, UNITS
from mmtransmamba.utils.conversion_options import add_mixer_options


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument('teacher', type=Path, help='folder of the Transformer')
    parser.add_argument(
        '--calibration',
        type=Path,
        required=True,
        help='a text file, or .npz with token ids in "tokens"',
    )
    parser.add_argument(
        '--calibration-tokens', type=positive, default=8192, help='how many are read'
    )
    parser.add_argument(
        '--calibration-steps',
        type=natural,
        help='for --init calibrate: steps of training of each mixer (default: 100)',
    )
    parser.add_argument(
        '--methods', nargs='+', choices=RANKINGS, default=list(RANKINGS)
    )
    parser.add_argument(
        '--on',
        nargs='+',
        choices=PROBES,
        default=['text'],
        help='what single, greedy and gates measure on (default: text)',
    )
    parser.add_argument(
        '--units',
        nargs='+',
        choices=UNITS,
        default=['layers'],
        help='what is ranked: whole layers, or single key-value heads of all layers '
        '(default: layers)',
    )
    parser.add_argument(
        '--ratio',
        type=real(above=0, most=1),
        default=0.5,
        help='share of Mamba layers in the comparison (default: 0.5)',
    )
    parser.add_argument(
        '--init', default='mimic', help=f'{", ".join(INITS)}; default: mimic'
    )
    add_mixer_options(parser, 'the one that goes with --init')
    parser.add_argument('--out', type=out_folder, help='folder to write')
    parser.add_argument('--seed', type=seed_number, default=0)
    return parser.parse_args()


@tool(parse_args)
def main(args: argparse.Namespace) -> None:
    from mmtransmamba.apis.layer_selection import select_layers
    from mmtransmamba.transfer.convert import Conversion

    for module in args.imports:
        importlib.import_module(module)
    conversion = Conversion(
        init=args.init,
        mixer=args.mixer,
        calibration=args.calibration,
        calibration_steps=args.calibration_steps,
        seed=args.seed,
    )
    select_layers(
        args.teacher,
        args.calibration,
        args.out,
        args.methods,
        args.on,
        args.ratio,
        args.calibration_tokens,
        conversion,
        units=args.units,
    )


if __name__ == '__main__':
    main()
