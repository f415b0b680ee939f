"""Convert a vision encoder to a hybrid with mixers that scan in two directions.

The encoder is a folder in Hugging Face format: a ViT, DeiT, DINOv2 or DINOv3 with or
without classifier, or the vision tower of CLIP or SigLIP. Works offline. With
--calibration, the hybrid is compared with the teacher on an eighth of the images, and
with --init calibrate the mixers are fitted to the others.
"""

import argparse
import importlib
from pathlib import Path

from _tool import Parser, natural, out_folder, positive, seed_number, tool

from mmtransmamba.utils.choices import ENCODER_INITS
from mmtransmamba.utils.conversion_options import (
    add_layer_options,
    add_mixer_options,
    read_conversion_options,
)


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument('teacher', type=Path, help='folder of the Transformer')
    add_layer_options(parser, 'evenly', '1')
    parser.add_argument(
        '--init',
        default='mimic',
        help=f'{", ".join(ENCODER_INITS)}, or one of another mixer; default: mimic',
    )
    add_mixer_options(parser, 'Mamba2')
    parser.add_argument('--out', type=out_folder, help='folder to write')
    parser.add_argument('--overwrite', action='store_true', help='replace the folder')
    parser.add_argument('--dry-run', action='store_true', help='only print the report')
    parser.add_argument('--seed', type=seed_number, default=0)
    parser.add_argument('--calibration', type=Path, help='folder of image files')
    parser.add_argument(
        '--calibration-images', type=positive, default=64, help='how many are read'
    )
    parser.add_argument(
        '--calibration-steps',
        type=natural,
        help='training steps of --init calibrate; 0 for the closed forms alone',
    )
    args = parser.parse_args()
    if args.out is None and not args.dry_run:
        parser.error('give --out, or --dry-run for the report alone')
    read_conversion_options(parser, args)
    return args


@tool(parse_args)
def main(args: argparse.Namespace) -> None:
    from mmtransmamba.transfer.convert import (
        EncoderConversion,
        plan_conversion,
        write_model,
    )
    from mmtransmamba.transfer.convert.writer import check_replaceable

    for module in args.imports:
        importlib.import_module(module)
    conversion = EncoderConversion(
        layers=args.layers,
        ratio=args.ratio,
        init=args.init,
        seed=args.seed,
        mixer=args.mixer,
        calibration=args.calibration or (),
        calibration_images=args.calibration_images,
        calibration_steps=args.calibration_steps,
    )
    if not args.dry_run:
        check_replaceable(args.out, args.teacher, args.overwrite)
    plan = plan_conversion(args.teacher, conversion)
    print(plan.report())
    if args.dry_run:
        return
    print(f'written to {write_model(plan, args.out, overwrite=args.overwrite)}')


if __name__ == '__main__':
    main()
