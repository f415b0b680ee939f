"""The final step that the converters of official files share."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from tqdm import tqdm

from mmtransmamba.datasets.video_text.annotations import (
    Captions,
    match_files,
    write_captions,
)
from mmtransmamba.datasets.video_text.decoding import CorruptVideoError, decode_video


def convert(
    captions: Captions,
    out: Path,
    videos: Path | None = None,
    check: bool = False,
    sources: Sequence[Path] = (),
) -> Captions:
    """Write mmaction's JSON and report the videos that were left out.

    Args:
        captions: Captions by the name of the video.
        out: The file to write.
        videos: Leave out videos that are not in this folder.
        check: Also leave out videos that cannot be decoded to their end.
        sources: The files that the captions were read from.

    Returns:
        The captions that were written.

    Raises:
        FileNotFoundError: No video is left.
        ValueError: The file to write is one of the sources.
    """
    if out.exists() and any(out.samefile(source) for source in sources):
        raise ValueError(
            f'{out} is the file that the captions come from, and would be replaced; '
            'choose another folder'
        )
    if videos is not None:
        captions, missing = match_files(captions, videos)
        if missing:
            print(f'{len(missing)} videos have no file: {_some(missing)}')
    if videos is not None and check:
        faults = find_corrupt([videos / name for name in captions])
        for fault in faults.values():
            print(fault)
        captions = {k: v for k, v in captions.items() if videos / k not in faults}
        print(f'{len(faults)} videos do not decode')
    if not captions:
        raise FileNotFoundError(f'no video is left to write to {out}')
    write_captions(captions, out)
    number = sum(map(len, captions.values()))
    print(f'{out}: {len(captions)} videos, {number} captions')
    return captions


def find_corrupt(paths: list[Path], num_frames: int = 64) -> dict[Path, str]:
    """Errors of the videos that cannot be decoded up to their last part.

    Args:
        paths: The files; they are read by as many processes as there are cores.
        num_frames: Number of parts, of which the last must be decodable.
    """
    fault = partial(_fault, num_frames=num_frames)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        found = list(tqdm(pool.map(fault, paths), total=len(paths), unit='video'))
    return {path: text for path, text in zip(paths, found, strict=True) if text}


def _fault(path: Path, num_frames: int) -> str | None:
    try:
        decode_video(path, num_frames)
    except CorruptVideoError as error:
        return str(error)
    return None


def _some(names: list[str]) -> str:
    return ', '.join(names[:5]) + (', …' if len(names) > 5 else '')
