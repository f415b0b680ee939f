"""Write DiDeMo's official files as mmaction's JSON, for paragraph retrieval.

A video's descriptions, joined in the order of the file, are its one caption. With
--videos a name stands for the file of the same name with any extension.
"""

import argparse
import sys
from pathlib import Path

# A clean checkout needs no installation of the package itself.
_ROOT = Path(__file__).absolute().parent.parent.parent
if (_ROOT / 'mmtransmamba' / '__init__.py').is_file():
    sys.path.insert(0, str(_ROOT))

from mmtransmamba.datasets.video_text import AnnotationError, read_didemo
from mmtransmamba.datasets.video_text.conversion import convert


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
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
    parser.add_argument('--out', type=Path, default=Path('data/didemo'))
    args = parser.parse_args()
    if not (args.train or args.val or args.test):
        parser.error('give --train, --val or --test')
    if args.check and args.videos is None:
        parser.error('--check needs --videos FOLDER')
    return args


def main() -> None:
    args = parse_args()
    try:
        for split in ('train', 'val', 'test'):
            path = getattr(args, split)
            if path is not None:
                out = args.out / f'{split}.json'
                convert(read_didemo(path), out, args.videos, args.check)
    except (AnnotationError, FileNotFoundError) as error:
        sys.exit(f'error: {error}')


if __name__ == '__main__':
    main()
