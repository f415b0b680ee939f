"""Turn a GGUF file into a model folder of transformers.

Quantised weights are expanded. The folder has model, tokenizer
and chat template, and serves as a teacher like any other.
"""

from __future__ import annotations

import argparse

from _tool import Parser, out_folder, tool


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument('file', help='GGUF file of a language model')
    parser.add_argument('--out', type=out_folder, required=True, help='folder to write')
    parser.add_argument(
        '--dtype', default='float32', help='of the weights (default: float32)'
    )
    return parser.parse_args()


@tool(parse_args)
def main(args: argparse.Namespace) -> None:
    from mmtransmamba.models.folders import load_gguf, load_gguf_tokenizer
    from mmtransmamba.utils.dtypes import floating_dtype

    dtype = floating_dtype(args.dtype)
    if args.out.exists():
        raise FileExistsError(f'{args.out} exists; give another folder')
    tokenizer = load_gguf_tokenizer(args.file)
    model = load_gguf(args.file).to(dtype)
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    print(f'written to {args.out}')


if __name__ == '__main__':
    main()
