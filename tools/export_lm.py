"""Write a converted language model for programs without this package.

`--to granite` writes a folder of transformers' own `granitemoehybrid`, which plain
transformers (5.23 or later), vLLM and SGLang read; `--to bamba` one that llama.cpp
converts to GGUF. The folder is compared with the hybrid before it gets its name.
docs/serving.md lists the supported models.
"""

from __future__ import annotations

import argparse

from _tool import Parser, out_folder, tool


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument(
        'model', help='folder of a converted model, or work directory of its training'
    )
    parser.add_argument(
        '--to', choices=('granite', 'bamba'), required=True, help='the format'
    )
    parser.add_argument('--out', type=out_folder, required=True, help='folder to write')
    parser.add_argument(
        '--overwrite', action='store_true', help='replace an earlier export'
    )
    parser.add_argument(
        '--no-check', action='store_true', help='do not compare with the hybrid'
    )
    return parser.parse_args()


@tool(parse_args)
def main(args: argparse.Namespace) -> None:
    from mmtransmamba.apis.serving import export_language_model

    report = export_language_model(
        args.model,
        args.out,
        args.to,
        overwrite=args.overwrite,
        check=not args.no_check,
    )
    print(f'wrote   {report.path}')
    if report.difference is None:
        print('not checked')
    else:
        print(f'logits  {report.difference:.1e} from the hybrid')
        print(f'tokens  {report.tokens} greedy tokens, equal')


if __name__ == '__main__':
    main()
