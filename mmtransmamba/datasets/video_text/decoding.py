"""Frames of video files, by PyAV or decord."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

Frames = list[np.ndarray]


class CorruptVideoError(ValueError):
    """A video file whose frames cannot be decoded."""


def segment_indices(total: int, num_frames: int, jitter: bool = False) -> np.ndarray:
    """One frame of each of ``num_frames`` segments of equal length.

    Frames of a video that has fewer are repeated.

    Args:
        total: Frames of the video.
        num_frames: Segments.
        jitter: Draw the place within a segment, from numpy's global generator,
            instead of taking the middle.

    Returns:
        Increasing indices, int64 ``[num_frames]``.
    """
    edges = np.linspace(0, total, num_frames + 1)
    place = np.random.uniform(size=num_frames) if jitter else 0.5
    indices = np.floor(edges[:-1] + place * np.diff(edges)).astype(np.int64)
    return indices.clip(0, total - 1)


def decode_with_pyav(path: Path, num_frames: int, jitter: bool) -> Frames:
    """See :func:`decode_video`."""
    import av

    try:
        # Headers may lack the number of frames (mkv) or promise more than there are,
        # so packets are counted, which decodes nothing.
        with _open_container(path) as container:
            total = 0
            if container.streams.video:
                total = sum(packet.size > 0 for packet in container.demux(video=0))
        wanted = segment_indices(total, num_frames, jitter)
        chosen, index, last = {}, -1, None
        with _open_container(path) as container:
            for index, last in enumerate(container.decode(video=0) if total else ()):
                if index in wanted:
                    chosen[index] = _upright(last)
                if index >= wanted[-1]:
                    break
    except av.FFmpegError as error:
        raise CorruptVideoError(f'{path} cannot be decoded: {error}') from error
    if last is None:
        raise CorruptVideoError(f'{path} has no frames')
    # A packet need not give a frame; the last there is stands for those.
    chosen.update(dict.fromkeys(wanted[wanted > index].tolist(), _upright(last)))
    return [chosen[index] for index in wanted.tolist()]


def _open_container(path: Path):
    import av

    # A title that is no UTF-8, as old cameras write it, says nothing of the frames.
    return av.open(str(path), metadata_errors='replace')


def _upright(frame) -> np.ndarray:
    """RGB pixels, turned as the display matrix of the file asks."""
    image = frame.to_ndarray(format='rgb24')
    return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))


def decode_with_decord(path: Path, num_frames: int, jitter: bool) -> Frames:
    """See :func:`decode_video`; decord turns frames upright by itself."""
    import decord

    try:
        reader = decord.VideoReader(str(path), num_threads=1)
        if len(reader) == 0:
            raise CorruptVideoError(f'{path} has no frames')
        wanted = segment_indices(len(reader), num_frames, jitter)
        return list(reader.get_batch(wanted).asnumpy())
    except (decord.DECORDError, RuntimeError, IndexError) as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else error
        raise CorruptVideoError(f'{path} cannot be decoded: {reason}') from error


DECODERS: dict[str, Callable[[Path, int, bool], Frames]] = {
    'pyav': decode_with_pyav,
    'decord': decode_with_decord,
}


def decode_video(
    path: str | Path, num_frames: int, jitter: bool = False, decoder: str = 'pyav'
) -> Frames:
    """Frames spread evenly over a video.

    Args:
        path: The file.
        num_frames: How many, see :func:`segment_indices`.
        jitter: Likewise.
        decoder: One of ``DECODERS``.

    Returns:
        RGB, uint8 ``[H, W, 3]`` each, upright where the file has a rotation tag.

    Raises:
        CorruptVideoError: The file does not decode up to the last of these frames.
        FileNotFoundError: There is no such file.
        ImportError: The decoder's package is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'There is no video at {path}.')
    try:
        return DECODERS[decoder](path, num_frames, jitter)
    except ImportError as error:
        raise ImportError(
            f'decoder={decoder!r} needs a package that is not installed ({error}); '
            'pip install "mmtransmamba[video]" brings it.'
        ) from error
