"""Transfer a language model by a recipe: convert, train, evaluate, report.

transfer_lm.py TEACHER --recipe mmmamba --data text.jsonl --tokens 5M --out OUT

First a plan is printed: the stages with their tokens, trained parameters, memory and
time, estimated from a few steps. --tokens is the only dial: it also sets batch and
number of steps. The command can be interrupted at any time; repeated with the same
arguments it goes on, and gives the same student.

OUT/student is the student, for from_pretrained; OUT/report.html compares it with its
teacher, before and after each stage.
"""

import argparse
import importlib
from pathlib import Path

from _tool import Parser, out_folder, seed_number, tool

from mmtransmamba.utils.choices import RECIPES
from mmtransmamba.utils.conversion_options import (
    add_layer_options,
    add_mixer_options,
    read_layer_options,
)
from mmtransmamba.utils.numbers import count


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument('teacher', type=Path, help='folder of the Transformer')
    parser.add_argument(
        '--recipe',
        default='calibrated',
        help=f'{", ".join(RECIPES)}, or a file of your own; default: calibrated',
    )
    parser.add_argument(
        '--data',
        required=True,
        help='.jsonl or text file, a quoted pattern of such files, or .npz with token '
        'ids in "tokens"',
    )
    parser.add_argument('--out', type=out_folder, required=True, help='folder to write')
    parser.add_argument(
        '--tokens',
        type=count,
        default=5_000_000,
        help='budget of all stages, such as 500K, 5M or 1B (default: 5M)',
    )
    add_layer_options(parser, None, 'that of the recipe')
    add_mixer_options(parser, 'that of the recipe')
    parser.add_argument(
        '--mamba-checkpoint', help='Mamba-1 model, for the recipe transmamba'
    )
    parser.add_argument(
        '--val', help='held-out text; by default the last blocks of --data'
    )
    parser.add_argument('--text-key', default='text', help='key of the text in .jsonl')
    parser.add_argument(
        '--prompt-key', help='key of the prompt before it, which is not learned'
    )
    parser.add_argument('--plan', action='store_true', help='only print the plan')
    parser.add_argument('--seed', type=seed_number, default=0)
    args = parser.parse_args()
    read_layer_options(parser, args)
    return args


@tool(parse_args, 'interrupted; the same command goes on')
def main(args: argparse.Namespace) -> None:
    from transformers.utils.logging import disable_progress_bar

    from mmtransmamba.apis.recipes import transfer_lm

    disable_progress_bar()
    for module in args.imports:
        importlib.import_module(module)
    transfer_lm(
        args.teacher,
        args.data,
        args.out,
        args.recipe,
        args.tokens,
        only_plan=args.plan,
        show=lambda text: print(text, flush=True),
        layers=args.layers,
        ratio=args.ratio,
        mixer=args.mixer,
        mamba_checkpoint=args.mamba_checkpoint,
        val=args.val,
        text_key=args.text_key,
        prompt_key=args.prompt_key,
        seed=args.seed,
    )


if __name__ == '__main__':
    main()
