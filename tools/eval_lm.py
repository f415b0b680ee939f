"""Score language models on zero-shot benchmarks, side by side.

Prompts and metrics are those of lm-evaluation-harness. The first model is the one that
the others are compared with, for example the teacher.
"""

from __future__ import annotations

import argparse

from _tool import Parser, positive, tool

from mmtransmamba.utils.choices import LM_BENCHMARKS


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument('models', nargs='+', help='folders with model and tokenizer')
    parser.add_argument(
        '--data', required=True, help='folder with the JSON lines of the benchmarks'
    )
    parser.add_argument(
        '--tasks',
        nargs='+',
        choices=LM_BENCHMARKS,
        default=('lambada_openai', 'piqa', 'arc_easy_val', 'openbookqa_val'),
        help='benchmarks (default: %(default)s)',
    )
    parser.add_argument(
        '--limit', type=positive, help='the first so many questions of each'
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
    parser.add_argument('--out', help='write all scores to this JSON file')
    return parser.parse_args()


@tool(parse_args)
def main(args: argparse.Namespace) -> None:
    from pathlib import Path

    from mmtransmamba.apis.lm_benchmarks import evaluate_lm

    if args.out and not Path(args.out).absolute().parent.is_dir():
        raise FileNotFoundError(f'--out {args.out}: its folder does not exist')
    comparison = evaluate_lm(
        args.models,
        args.tasks,
        args.data,
        args.limit,
        args.batch_tokens,
        args.device,
        args.dtype,
    )
    print(comparison.table())
    if args.out:
        comparison.save(args.out)


if __name__ == '__main__':
    main()
