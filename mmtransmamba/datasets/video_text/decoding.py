"""Decoding of frames from video files, with PyAV or decord."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

Frames = list[np.ndarray]
# decord turns FFmpeg's mark of an unknown time, -2**63 ticks, into these seconds.
_NO_TIME = 1e12


class CorruptVideoError(ValueError):
    """A video file whose frames cannot be decoded."""


def segment_indices(total: int, num_frames: int, jitter: bool = False) -> np.ndarray:
    """One frame of each of ``num_frames`` segments of equal length.

    If the video has fewer frames, frames are repeated.

    Args:
        total: Frames of the video.
        num_frames: Segments.
        jitter: Draw the position within a segment from numpy's global generator,
            instead of taking the middle.

    Returns:
        Increasing indices, int64 ``[num_frames]``.
    """
    edges = np.linspace(0, total, num_frames + 1)
    place = np.random.uniform(size=num_frames) if jitter else 0.5
    indices = np.floor(edges[:-1] + place * np.diff(edges)).astype(np.int64)
    return indices.clip(0, total - 1)


def frame_indices(
    times: np.ndarray, last: float, num_frames: int, jitter: bool = False
) -> np.ndarray:
    """The frame that is shown in each of ``num_frames`` segments of equal duration.

    If frames come at regular intervals, these are :func:`segment_indices`. Screen
    recordings and videos from phones have frames of different durations; then the time
    decides, not the frame number.

    Args:
        times: Time at which each frame is shown, increasing, ``[N]``; NaN if unknown.
        last: Duration of the last frame, in the same unit; 0 if unknown.
        num_frames: Segments.
        jitter: See :func:`segment_indices`.

    Returns:
        Non-decreasing indices, int64 ``[num_frames]``.
    """
    total = len(times)
    if not _are_irregular(times):
        return segment_indices(total, num_frames, jitter)
    last = last if last > 0 else float(np.median(np.diff(times)))
    edges = np.linspace(times[0], times[-1] + last, num_frames + 1)
    place = np.random.uniform(size=num_frames) if jitter else 0.5
    # Shift slightly, so that rounding does not decide at the start of a frame.
    shown = edges[:-1] + (place + 1e-6) * np.diff(edges)
    return (np.searchsorted(times, shown, side='right') - 1).clip(0, total - 1)


def _are_irregular(times: np.ndarray) -> bool:
    """Whether a frame is more than half an interval away from its regular time."""
    if len(times) < 3 or not np.isfinite(times).all() or not times[-1] > times[0]:
        return False
    regular = np.linspace(times[0], times[-1], len(times))
    interval = (times[-1] - times[0]) / (len(times) - 1)
    return bool(
        (np.diff(times) >= 0).all() and abs(times - regular).max() > interval / 2
    )


def decode_with_pyav(path: Path, num_frames: int, jitter: bool) -> Frames:
    """See :func:`decode_video`."""
    import av

    try:
        # Headers may lack the number of frames (mkv) or promise more than there are, so
        # packets are counted, which needs no decoding.
        with _open_container(path) as container:
            stream, times, last_shown = _best_stream(container)
        if not len(times):
            raise CorruptVideoError(f'{path} has no frames')
        wanted = frame_indices(times, last_shown, num_frames, jitter)
        chosen, index, last = {}, -1, None
        with _open_container(path) as container:
            for index, last in enumerate(container.decode(container.streams[stream])):
                if index in wanted:
                    chosen[index] = _upright(last)
                if index >= wanted[-1]:
                    break
    except av.FFmpegError as error:
        raise CorruptVideoError(f'{path} cannot be decoded: {error}') from error
    if last is None:
        raise CorruptVideoError(f'{path} has no frames')
    # A packet need not produce a frame; the last existing frame replaces missing ones.
    chosen.update(dict.fromkeys(wanted[wanted > index].tolist(), _upright(last)))
    return [chosen[index] for index in wanted.tolist()]


def _best_stream(container) -> tuple[int, np.ndarray, float]:
    """The film stream, the times of its frames, and the duration of the last one.

    Streams marked as a cover picture are avoided if there is another, and so are those
    with a single frame. Then FFmpeg's choice is preferred, then the largest picture.
    """
    streams = {stream.index: stream for stream in container.streams.video}
    packets = {index: [] for index in streams}
    for packet in container.demux(*streams.values()) if streams else ():
        if packet.size > 0 and not packet.is_discard:
            time = packet.dts if packet.pts is None else packet.pts
            known = np.nan if time is None else time
            packets[packet.stream.index].append((known, packet.duration or 0))
    if not streams:
        return -1, np.empty(0), 0
    preferred = container.streams.best('video')

    def rank(index: int) -> tuple:
        stream = streams[index]
        cover = bool(stream.disposition & stream.disposition.attached_pic)
        pixels = (stream.width or 0) * (stream.height or 0)
        several = min(len(packets[index]), 5)  # like FFmpeg, which checks no more
        is_preferred = preferred is not None and preferred.index == index
        return not cover, several, is_preferred, pixels, -index

    best = max(streams, key=rank)
    # Frames may be coded in another order; they come out in the order of their times.
    shown = sorted(packets[best], key=lambda pair: pair[0])
    times = np.array([time for time, _ in shown], float)
    return best, times, float(shown[-1][1]) if shown else 0


def _open_container(path: Path):
    import av

    # A title that is not UTF-8, as old cameras write it, does not affect the frames.
    return av.open(str(path), metadata_errors='replace')


def _upright(frame) -> np.ndarray:
    """RGB pixels, rotated by the display matrix of the file."""
    image = frame.to_ndarray(format='rgb24')
    return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))


def decode_with_decord(path: Path, num_frames: int, jitter: bool) -> Frames:
    """See :func:`decode_video`; decord rotates frames by itself."""
    import decord

    try:
        reader = decord.VideoReader(str(path), num_threads=1)
        if len(reader) == 0:
            raise CorruptVideoError(f'{path} has no frames')
        shown = np.asarray(reader.get_frame_timestamp(range(len(reader))), float)
        shown = shown.reshape(len(reader), 2)
        shown[abs(shown) > _NO_TIME] = np.nan
        last = float(shown[-1, 1] - shown[-1, 0])
        wanted = frame_indices(shown[:, 0], last, num_frames, jitter)
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
    """Sample frames evenly over the duration of a video.

    If there are several video streams, the film is used, not a cover picture.

    Args:
        path: The file.
        num_frames: Number of frames, see :func:`frame_indices`.
        jitter: See :func:`segment_indices`.
        decoder: One of ``DECODERS``.

    Returns:
        RGB, uint8 ``[H, W, 3]`` each, rotated by the file's rotation tag.

    Raises:
        CorruptVideoError: The file cannot be decoded up to the last of these frames.
        FileNotFoundError: The file does not exist.
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
