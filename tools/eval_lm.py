"""Score language models on zero-shot and generated benchmarks, side by side.

Prompts and metrics of official sets are those of lm-evaluation-harness; recall and
state tracking are generated. The first model is the one that the others are compared
with, for example the teacher.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from _tool import Parser, out_file, out_folder, positive, seed_number, tool

from mmtransmamba.utils.choices import LM_BENCHMARKS, LM_GENERATED, LM_GROUPS

if TYPE_CHECKING:
    from mmtransmamba.apis.lm_comparison import LanguageComparison


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument('models', nargs='+', help='folders with model and tokenizer')
    parser.add_argument(
        '--data',
        help='folder with the JSON lines of the benchmarks; generated ones need none',
    )
    parser.add_argument(
        '--tasks',
        nargs='+',
        choices=(*LM_BENCHMARKS, *LM_GENERATED, *LM_GROUPS),
        default=('lambada_openai', 'piqa', 'arc_easy_val', 'openbookqa_val'),
        help='benchmarks (default: %(default)s)',
    )
    parser.add_argument(
        '--limit',
        type=positive,
        help='the first so many questions of each, or of each length',
    )
    parser.add_argument(
        '--lengths',
        nargs='+',
        type=positive,
        help="of generated questions; default: each benchmark's own",
    )
    parser.add_argument(
        '--letters',
        action='store_true',
        help='also ask with letters, in all rotations of the options',
    )
    parser.add_argument(
        '--seed', type=seed_number, default=0, help='of generated questions'
    )
    parser.add_argument(
        '--batch-tokens',
        type=positive,
        default=4096,
        help='tokens of a batch (default: 4096)',
    )
    parser.add_argument(
        '--device', default='auto', help='default: the GPU if there is one'
    )
    parser.add_argument('--dtype', help="such as bfloat16; default: the folder's own")
    parser.add_argument(
        '--out', type=out_file, help='write all scores to this JSON file'
    )
    parser.add_argument(
        '--csv', type=out_file, help='write all scores to this CSV file'
    )
    parser.add_argument(
        '--card',
        action='store_true',
        help='add the scores to the model cards (README.md) of converted models',
    )
    parser.add_argument(
        '--plots',
        type=out_folder,
        help='draw scores by length, and wins and ties, into this folder',
    )
    args = parser.parse_args()
    if args.out is not None and args.csv is not None:
        if args.out.resolve() == args.csv.resolve():
            parser.error(f'--out and --csv are one file, {args.out}; give two')
    return args


@tool(parse_args)
def main(args: argparse.Namespace) -> None:
    from mmtransmamba.apis.lm_benchmarks import evaluate_lm
    from mmtransmamba.models.card import add_rows, has_card

    for path in filter(None, (args.out, args.csv)):
        if not path.absolute().parent.is_dir():
            raise FileNotFoundError(f'{path}: its folder does not exist')
    carded = [folder for folder in args.models if args.card and has_card(folder)]
    if args.card and not carded:
        raise ValueError(
            f'--card: none of {", ".join(args.models)} has a model card that '
            'mmtransmamba wrote'
        )

    finished: list[LanguageComparison] = []

    def keep(comparison: LanguageComparison) -> None:
        finished[:] = [comparison]
        if args.out:
            comparison.save(args.out)
        if args.csv:
            comparison.save_csv(args.csv)

    try:
        comparison = evaluate_lm(
            args.models,
            args.tasks,
            args.data,
            args.limit,
            args.batch_tokens,
            args.device,
            args.dtype,
            args.lengths,
            args.letters,
            args.seed,
            keep,
        )
    finally:
        # Of the models before one that fails, too.
        for scored in finished:
            print(scored.table())
    for folder in carded:
        add_rows(folder, comparison.card_rows(folder))
        print(f'added to {folder}/README.md')
    if args.plots:
        comparison.plot(args.plots)


if __name__ == '__main__':
    main()
