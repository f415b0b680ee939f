"""Find videos by text: index a folder once, then query it from the terminal.

python tools/retrieve.py index CONFIG CHECKPOINT FOLDER --out videos.safetensors
python tools/retrieve.py query videos.safetensors "a dog runs on the beach"
python tools/retrieve.py query videos.safetensors        # reads queries, one per line
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from _tool import Parser, natural, out_file, positive, tool

if TYPE_CHECKING:
    from mmtransmamba.apis.video_index import Retriever, VideoIndex


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    commands = parser.add_subparsers(dest='command', required=True)
    index = commands.add_parser('index', help='embed all videos below a folder')
    index.add_argument('config', type=Path)
    index.add_argument('checkpoint', type=Path)
    index.add_argument('folder', type=Path)
    index.add_argument('--out', type=out_file, default='videos.safetensors')
    index.add_argument('--batch-size', type=positive, default=8)
    index.add_argument(
        '--workers', type=natural, default=0, help='processes that decode'
    )
    query = commands.add_parser('query', help='find videos in an index')
    query.add_argument('index', type=Path)
    query.add_argument('text', nargs='*', help='queries; without any, standard input')
    query.add_argument(
        '-k', type=positive, default=5, help='how many videos (default: 5)'
    )
    query.add_argument(
        '--config', type=Path, help='in place of the settings in the index'
    )
    query.add_argument('--checkpoint', type=Path, help='if it is not where it was')
    for command in (index, query):
        command.add_argument('--device', help='default: the GPU if there is one')
    return parser.parse_args()


def make_index(args: argparse.Namespace) -> None:
    from mmengine.device import get_device
    from tqdm import tqdm

    from mmtransmamba.apis.video_index import Retriever, index_folder
    from mmtransmamba.apis.vlm_loading import choose_device

    device = str(choose_device(args.device or get_device()))
    retriever = Retriever(args.config, args.checkpoint, device)
    index, faults = index_folder(
        retriever,
        args.folder,
        args.batch_size,
        args.workers,
        progress=lambda batches: tqdm(batches, desc='index', unit='batch'),
    )
    index.save(args.out)
    for fault in faults:
        print(f'skipped: {fault}')
    print(f'{args.out}: {len(index.names)} videos, {len(faults)} corrupt ones skipped')


def query(args: argparse.Namespace) -> None:
    from mmengine.device import get_device

    from mmtransmamba.apis.video_index import Retriever, VideoIndex
    from mmtransmamba.apis.vlm_loading import choose_device

    device = str(choose_device(args.device or get_device()))
    index = VideoIndex.load(args.index)
    checkpoint = args.checkpoint or index.info.get('checkpoint')
    if checkpoint is None:
        raise ValueError(
            f'{args.index} does not say which checkpoint it was made with: give '
            '--checkpoint.'
        )
    if args.config is not None:
        retriever = Retriever(args.config, checkpoint, device)
    elif index.settings is not None:
        retriever = Retriever.for_queries(index.settings, checkpoint, device)
    else:
        raise ValueError(without_settings(args.index, index))
    index.check_weights(retriever)
    if args.text:
        for text in args.text:
            answer(index, retriever, text, args.k)
        return
    for line in iter(lambda: read_line('query> '), None):
        if line.strip():
            try:
                answer(index, retriever, line.strip(), args.k)
            except ValueError as error:  # a word that the tokenizer does not know
                print(error, file=sys.stderr)


def without_settings(path: Path, index: VideoIndex) -> str:
    """The message for an index that does not contain its model's settings."""
    if 'config' in index.info:
        return (
            f'{path} is of an older version and names a config, '
            f'{index.info["config"]}. A config is code, which no index is to choose: '
            'if you trust it give --config, or index the videos anew.'
        )
    return (
        f'{path} does not hold the settings of its model, which has parts of other '
        'packages: give --config.'
    )


def read_line(prompt: str) -> str | None:
    try:
        return input(prompt if sys.stdin.isatty() else '')
    except (EOFError, KeyboardInterrupt):
        return None


def answer(index: VideoIndex, retriever: Retriever, text: str, count: int) -> None:
    (embedding,) = retriever.embed_texts([text])
    print(text)
    for name, cosine in index.search(embedding, count):
        print(f'  {cosine:6.3f}  {Path(index.info.get("folder", "")) / name}')


@tool(parse_args)
def main(args: argparse.Namespace) -> None:
    (make_index if args.command == 'index' else query)(args)


if __name__ == '__main__':
    main()
