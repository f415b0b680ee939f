"""Convert a language or vision-language model to a Mamba hybrid.

The model is in Hugging Face format. For a vision-language model, only the inner
language model is converted; vision tower, projector and processor are copied from the
teacher.

Works offline on a local folder. Weights are read and written one tensor at a time, so
an 8B model needs the memory of one shard. With --layers auto, the teacher is loaded
once to measure the cost of converting each layer; with --calibration, it is loaded
to compare the hybrid with it, and to fit the mixers with --init calibrate.
"""

import argparse
import importlib
from pathlib import Path

from _tool import (
    KeyValues,
    Parser,
    natural,
    out_folder,
    positive,
    real,
    seed_number,
    tool,
)

from mmtransmamba.utils.choices import INITS, RANKINGS
from mmtransmamba.utils.conversion_options import (
    add_layer_options,
    add_mixer_options,
    read_conversion_options,
)


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument(
        'teacher', type=Path, help='folder of the Transformer, or its GGUF file'
    )
    add_layer_options(parser, 'evenly', '1')
    parser.add_argument(
        '--init',
        default='mimic',
        help=f'{", ".join(INITS)}, or one of another mixer; default: mimic (mmMamba)',
    )
    add_mixer_options(parser, 'the one that goes with --init')
    parser.add_argument('--mamba-checkpoint', help='Mamba-1 model, for --init subclone')
    parser.add_argument('--out', type=out_folder, help='folder to write')
    parser.add_argument('--overwrite', action='store_true', help='replace the folder')
    parser.add_argument('--dry-run', action='store_true', help='only print the report')
    parser.add_argument('--seed', type=seed_number, default=0)
    parser.add_argument(
        '--max-shard-size',
        type=real(above=0),
        default=5.0,
        help='gigabytes (default: 5)',
    )
    parser.add_argument(
        '--calibration',
        type=Path,
        help='a text file, or .npz with token ids in "tokens": for --layers auto and '
        '--init calibrate, and to compare any hybrid with its teacher',
    )
    parser.add_argument(
        '--calibration-tokens', type=positive, help='how many are read (default: 8192)'
    )
    parser.add_argument(
        '--calibration-steps',
        type=natural,
        help='for --init calibrate: steps of training of each mixer (default: 100)',
    )
    parser.add_argument(
        '--ranking', choices=RANKINGS, help='for --layers auto (default: single)'
    )
    parser.add_argument(
        '--fields',
        nargs='+',
        action=KeyValues,
        default={},
        metavar='KEY=VALUE',
        help="fields of the student's config that differ from the teacher's",
    )
    args = parser.parse_args()
    if not args.dry_run and args.out is None:
        parser.error('give --out FOLDER, or --dry-run')
    if args.layers == 'auto' and args.calibration is None:
        parser.error('--layers auto needs --calibration FILE')
    if args.init == 'calibrate' and args.calibration is None:
        parser.error('--init calibrate needs --calibration FILE')
    read_conversion_options(parser, args)
    return args


@tool(parse_args)
def main(args: argparse.Namespace) -> None:
    from mmtransmamba.transfer.convert import (
        Conversion,
        plan_conversion,
        write_model,
    )
    from mmtransmamba.transfer.convert.writer import check_replaceable

    for module in args.imports:
        importlib.import_module(module)
    conversion = Conversion(
        layers=args.layers,
        ratio=args.ratio,
        init=args.init,
        seed=args.seed,
        mixer=args.mixer,
        mamba_checkpoint=args.mamba_checkpoint,
        calibration=args.calibration or (),
        calibration_tokens=args.calibration_tokens or 8192,
        calibration_steps=args.calibration_steps,
        ranking=args.ranking or 'single',
        fields=args.fields,
    )
    if not args.dry_run:
        check_replaceable(args.out, args.teacher, args.overwrite)
    plan = plan_conversion(args.teacher, conversion)
    if plan.ranking is not None:
        print(plan.ranking)
    print(plan.report())
    if args.dry_run:
        return
    size = int(args.max_shard_size * 1e9)
    folder = write_model(plan, args.out, size, args.overwrite)
    print(f'written to {folder}')


if __name__ == '__main__':
    main()
