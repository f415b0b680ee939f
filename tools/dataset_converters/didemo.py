"""Convert DiDeMo's official files to mmaction's JSON, for paragraph retrieval.

The descriptions of a video are joined in the order of the file into a single caption.
With --videos, a name matches the file of the same name with any extension.
"""

import argparse
from pathlib import Path

from _tool import Parser, out_folder, tool


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    for split in ('train', 'val', 'test'):
        parser.add_argument(
            f'--{split}', type=Path, help=f'{split}_data.json, also compressed (.gz)'
        )
    parser.add_argument(
        '--videos', type=Path, help='leave out what has no file in this folder'
    )
    parser.add_argument(
        '--check', action='store_true', help='leave out what does not decode, too'
    )
    parser.add_argument('--out', type=out_folder, default='data/didemo')
    args = parser.parse_args()
    if not (args.train or args.val or args.test):
        parser.error('give --train, --val or --test')
    if args.check and args.videos is None:
        parser.error('--check needs --videos FOLDER')
    return args


@tool(parse_args)
def main(args: argparse.Namespace) -> None:
    from mmtransmamba.datasets.video_text import read_didemo
    from mmtransmamba.datasets.video_text.conversion import convert

    for split in ('train', 'val', 'test'):
        path = getattr(args, split)
        if path is not None:
            out = args.out / f'{split}.json'
            convert(read_didemo(path), out, args.videos, args.check, [path])


if __name__ == '__main__':
    main()
