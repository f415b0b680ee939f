"""Add image patches and holistic layers to a language model, as HoVLE does.

Writes a folder with a decoder-only vision-language model and its processor. The model
still has to be trained on images. Nothing is downloaded, and no code in the folders is
run.
"""

import argparse
from pathlib import Path

from _tool import Parser, out_folder, positive, seed_number, tool


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument('language', type=Path, help='folder of the language model')
    parser.add_argument('out', type=out_folder, help='folder to write')
    parser.add_argument(
        '--holistic',
        default='8',
        metavar='LAYERS',
        help='a number of new layers, indices of layers to copy such as 0,1,2, (a '
        'single one with a comma), or the folder of a language model whose layers are '
        'taken; default: 8',
    )
    parser.add_argument(
        '--image-size', type=positive, default=448, help='side in pixels (default: 448)'
    )
    parser.add_argument(
        '--patch-size', type=positive, default=28, help='side in pixels (default: 28)'
    )
    parser.add_argument(
        '--max-tiles',
        type=positive,
        default=1,
        help='most tiles that an image is cut into (default: 1, the image itself)',
    )
    parser.add_argument(
        '--chat-template',
        type=Path,
        help="Jinja file; by default the tokenizer's own template, or LLaVA-1.5's",
    )
    parser.add_argument('--seed', type=seed_number, default=0)
    return parser.parse_args()


def holistic_of(text: str) -> int | list[int] | str:
    """The value of ``--holistic``."""
    if text.isdigit():
        return int(text)
    parts = text.rstrip(',').split(',')
    if all(part.isdigit() for part in parts):
        return [int(part) for part in parts]
    return text


@tool(parse_args)
def main(args: argparse.Namespace) -> None:
    from mmtransmamba.models.folders import write_patch_decoder
    from mmtransmamba.utils.text_files import read_text

    template = None
    if args.chat_template is not None:
        template = read_text(args.chat_template)
    folder = write_patch_decoder(
        args.language,
        args.out,
        template,
        args.max_tiles,
        holistic=holistic_of(args.holistic),
        image_size=args.image_size,
        patch_size=args.patch_size,
        seed=args.seed,
    )
    print(f'written to {folder}')


if __name__ == '__main__':
    main()
