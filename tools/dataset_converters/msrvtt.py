"""Convert MSR-VTT's official files to mmaction's JSON: {file name: [captions]}.

Creates train_9k.json from MSRVTT_train.9k.csv with the captions in MSRVTT_data.json,
and test_1k_A.json from MSRVTT_JSFUSION_test.csv. Either part may be omitted.
"""

import argparse
from pathlib import Path

from _tool import Parser, out_folder, tool


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument('--train', type=Path, help='MSRVTT_train.9k.csv (or 7k)')
    parser.add_argument('--captions', type=Path, help='MSRVTT_data.json, for --train')
    parser.add_argument('--test', type=Path, help='MSRVTT_JSFUSION_test.csv')
    parser.add_argument(
        '--videos', type=Path, help='leave out what has no file in this folder'
    )
    parser.add_argument(
        '--check', action='store_true', help='leave out what does not decode, too'
    )
    parser.add_argument('--out', type=out_folder, default='data/msrvtt')
    args = parser.parse_args()
    if args.train is None and args.test is None:
        parser.error('give --train, --test or both')
    if args.train is not None and args.captions is None:
        parser.error('--train needs --captions MSRVTT_data.json')
    if args.check and args.videos is None:
        parser.error('--check needs --videos FOLDER')
    return args


@tool(parse_args)
def main(args: argparse.Namespace) -> None:
    from mmtransmamba.datasets.video_text import read_msrvtt_test, read_msrvtt_train
    from mmtransmamba.datasets.video_text.conversion import convert

    if args.train is not None:
        split = args.train.stem.split('.')[-1]
        captions = read_msrvtt_train(args.train, args.captions)
        sources = [args.train, args.captions]
        out = args.out / f'train_{split}.json'
        convert(captions, out, args.videos, args.check, sources)
    if args.test is not None:
        captions = read_msrvtt_test(args.test)
        out = args.out / 'test_1k_A.json'
        convert(captions, out, args.videos, args.check, [args.test])


if __name__ == '__main__':
    main()
