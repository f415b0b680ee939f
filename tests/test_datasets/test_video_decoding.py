"""Which stream of a video file is decoded, and which of its frames."""

from fractions import Fraction

import numpy as np
import pytest

from mmtransmamba.datasets.video_text import decode_video
from mmtransmamba.datasets.video_text.decoding import (
    DECODERS,
    frame_indices,
    segment_indices,
)

av = pytest.importorskip('av')
COVER, FILM = 250, 60
PACKAGES = {'pyav': 'av', 'decord': 'decord'}


@pytest.fixture(params=DECODERS)
def decoder(request):
    pytest.importorskip(PACKAGES[request.param], reason=f'no {request.param}')
    return request.param


def add_video(container, codec='mpeg4', size=(32, 32), **options):
    stream = container.add_stream(codec, rate=30, options=options)
    stream.width, stream.height = size
    stream.pix_fmt = 'yuvj420p' if codec == 'mjpeg' else 'yuv420p'
    stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
    return stream


def put(container, stream, frames):
    """Encode grey frames: pairs of milliseconds and grey value."""
    for time, grey in frames:
        picture = np.full((stream.height, stream.width, 3), grey, np.uint8)
        frame = av.VideoFrame.from_ndarray(picture, format='rgb24')
        frame.pts, frame.time_base = time, Fraction(1, 1000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def write(path, frames, **options):
    with av.open(str(path), 'w') as container:
        put(container, add_video(container, **options), frames)
    return path


def greys(path, count, decoder='pyav'):
    frames = decode_video(path, count, decoder=decoder)
    return [round(float(frame.mean())) for frame in frames]


def near(found, wanted):
    return np.abs(np.subtract(found, wanted)).max() <= 6


# One second of dark frames, then nine of bright ones, which change slowly.
SLOW = [(33 * i, 20) for i in range(30)] + [(1000 + 900 * i, 220) for i in range(10)]


@pytest.mark.parametrize('suffix', ['mkv', 'mp4'])
@pytest.mark.parametrize('start', [0, 5000])
def test_frames_of_different_durations_are_chosen_by_time(
    tmp_path, suffix, start, decoder
):
    path = write(tmp_path / f'x.{suffix}', [(start + t, grey) for t, grey in SLOW])
    assert near(greys(path, 10, decoder), [20] + [220] * 9)
    # Each of them once: a ramp that dwells on its first and its last value.
    times = [0, *range(3000, 3500, 100), 3500]
    ramp = [(start + t, 20 + 30 * i) for i, t in enumerate(times)]
    path = write(tmp_path / f'y.{suffix}', [*ramp, (start + 7000, 230)])
    found = greys(path, 7, decoder)
    assert near(found[:3], [20] * 3) and near(found[4:], [200] * 3)


def test_decoders_choose_the_same_frames(tmp_path):
    pytest.importorskip('decord')
    times = np.cumsum(np.random.default_rng(0).integers(10, 400, 40)).tolist()
    frames = [(time, 10 + 6 * i) for i, time in enumerate(times)]
    path = write(tmp_path / 'x.mkv', frames)
    for count in (1, 3, 8, 50):
        assert near(greys(path, count, 'pyav'), greys(path, count, 'decord'))


@pytest.mark.parametrize('suffix', ['mkv', 'mp4', 'avi'])
@pytest.mark.parametrize('count', [1, 2, 30])
def test_frames_at_regular_intervals_are_chosen_by_number(
    tmp_path, suffix, count, decoder
):
    if (decoder, suffix, count) == ('decord', 'mkv', 1):
        pytest.skip('decord cannot tell the length of such a file, and says so')
    frames = [(round(i * 1000 / 30), 20 + 7 * i) for i in range(count)]
    path = write(tmp_path / f'x.{suffix}', frames)
    for num_frames in (1, 4, 7):
        wanted = [20 + 7 * i for i in segment_indices(count, num_frames)]
        assert near(greys(path, num_frames, decoder), wanted)


@pytest.mark.parametrize(
    'times, last, expected',
    [
        ([0, 1, 2, 3, 4, 5, 6, 7], 1, [1, 3, 5, 7]),
        # Rounded to milliseconds, delayed, negative: still regular.
        ([0, 33, 67, 100, 133, 167, 200, 233], 33, [1, 3, 5, 7]),
        ([-2, -1, 0, 1, 2, 3, 4, 5], 1, [1, 3, 5, 7]),
        ([0, 1, 2, 3, 4, 5, 6, 100], 1, [6, 6, 6, 6]),
        ([0, 1, 2, 3, 4, 5, 6, 100], 300, [6, 7, 7, 7]),
        ([-50, -49, -48, 50], 0, [2, 2, 2, 2]),
        # Unknown times, or none that could be.
        ([np.nan] * 8, 0, [1, 3, 5, 7]),
        ([0, 1, np.nan, 3], 1, [0, 1, 2, 3]),
        ([5] * 8, 0, [1, 3, 5, 7]),
        ([7], 0, [0, 0, 0, 0]),
    ],
)
def test_frames_by_their_times(times, last, expected):
    assert frame_indices(np.array(times, float), last, 4).tolist() == expected


def test_places_are_drawn_within_the_time_of_a_segment():
    np.random.seed(0)
    times = np.array([t for t, _ in SLOW], float)
    drawn = np.stack([frame_indices(times, 33, 10, jitter=True) for _ in range(200)])
    assert (np.diff(drawn) >= 0).all()
    assert len(set(drawn[:, 0])) > 20 and set(drawn[:, 5]) == {33, 34}


@pytest.mark.parametrize('first', [True, False])
@pytest.mark.parametrize('size', [(16, 16), (320, 240)])
@pytest.mark.parametrize('suffix', ['mkv', 'mp4'])
def test_a_cover_picture_is_not_the_film(tmp_path, first, size, suffix):
    """Whether it stands first, is larger, or neither is marked."""
    path = tmp_path / f'x.{suffix}'
    film = [(40 * i, FILM) for i in range(20)]
    with av.open(str(path), 'w') as container:
        streams = {}
        for name in ('cover', 'film') if first else ('film', 'cover'):
            options = dict(codec='mjpeg', size=size) if name == 'cover' else {}
            streams[name] = add_video(container, **options)
        put(container, streams['cover'], [(0, COVER)])
        put(container, streams['film'], film)
    assert near(greys(path, 4), [FILM] * 4)


def test_a_cover_picture_marked_as_such(tmp_path):
    """Though it is repeated more often than the film has frames."""
    path = tmp_path / 'x.mp4'
    with av.open(str(path), 'w') as container:
        cover, film = add_video(container, 'mjpeg'), add_video(container)
        cover.disposition = cover.disposition.attached_pic.value
        put(container, cover, [(0, COVER)])
        put(container, film, [(0, FILM)])
    assert near(greys(path, 3), [FILM] * 3)


def test_a_picture_alone_is_taken(tmp_path):
    path = write(tmp_path / 'x.mkv', [(0, COVER)], codec='mjpeg')
    assert near(greys(path, 3), [COVER] * 3)


def test_sound_and_subtitles_before_the_film(tmp_path, decoder):
    path = tmp_path / 'x.mkv'
    with av.open(str(path), 'w') as container:
        sound = container.add_stream('pcm_s16le', rate=8000)
        film = add_video(container)
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 800), np.int16), format='s16', layout='mono'
        )
        frame.rate = 8000
        container.mux(sound.encode(frame))
        put(container, film, SLOW)
    assert near(greys(path, 10, decoder), [20] + [220] * 9)
