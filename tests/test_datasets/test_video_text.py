import csv
import gzip
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import Compose
from tiny_retrievers import TEACHER
from torch.utils.data import DataLoader

from mmtransmamba.datasets.video_text import (
    AnnotationError,
    CLIPTextTokenizer,
    CorruptVideoError,
    VideoText,
    collate_video_text,
    dataset,
    decode_video,
    match_files,
    read_captions,
    read_didemo,
    read_msrvtt_test,
    read_msrvtt_train,
    read_video,
    write_captions,
)
from mmtransmamba.datasets.video_text.conversion import find_corrupt
from mmtransmamba.datasets.video_text.decoding import DECODERS, segment_indices
from mmtransmamba.registry import METRICS, MODELS

CONVERTERS = Path(__file__).resolve().parents[2] / 'tools' / 'dataset_converters'
PACKAGES = {'pyav': 'av', 'decord': 'decord'}
CORRUPT = 'decord_corrupted.mp4'
ROTATED = 'decord_rotated_90.mov'
TOKENIZER = dict(type='WordTokenizer', words=['a', 'clip', 'video'])


@pytest.fixture(scope='session')
def video_text(shared_dir):
    folder = shared_dir / 'data' / 'video_text'
    if not folder.is_dir():
        pytest.skip('no "video_text" in the shared data')
    return folder


@pytest.fixture(scope='session')
def clips(video_text):
    return video_text / 'clips'


@pytest.fixture(params=DECODERS)
def decoder(request):
    pytest.importorskip(PACKAGES[request.param], reason=f'no {request.param}')
    return request.param


@pytest.fixture
def run_converter(monkeypatch, capsys):
    def run(name, *arguments):
        spec = importlib.util.spec_from_file_location(name, CONVERTERS / f'{name}.py')
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(sys, 'argv', [name, *map(str, arguments)])
        module.main()
        return capsys.readouterr().out

    return run


# ------------------------------------------------------------------ annotations


def write_msrvtt(folder, videos=('video0', 'video1'), sentences=None):
    split, captions = folder / 'MSRVTT_train.9k.csv', folder / 'MSRVTT_data.json'
    split.write_text('\r\n'.join(['video_id', *videos]))
    if sentences is None:
        sentences = [
            dict(caption=f'clip {i} of {video}', video_id=video, sen_id=i)
            for i in range(2)
            for video in ('video1', 'video0', 'video7')
        ]
    captions.write_text(json.dumps(dict(videos=[], sentences=sentences)))
    return split, captions


def test_msrvtt_train(tmp_path):
    assert read_msrvtt_train(*write_msrvtt(tmp_path)) == {
        'video0.mp4': ['clip 0 of video0', 'clip 1 of video0'],
        'video1.mp4': ['clip 0 of video1', 'clip 1 of video1'],
    }


def test_msrvtt_train_of_videos_without_captions(tmp_path):
    files = write_msrvtt(tmp_path, ['video0', 'video3'])
    with pytest.raises(AnnotationError, match='1 of the 2 videos .*: video3'):
        read_msrvtt_train(*files)


@pytest.mark.parametrize(
    'sentences, message',
    [(dict(), "no 'sentences' of type list"), ([dict(video_id='x')], "no 'caption'")],
)
def test_msrvtt_captions_of_another_form(tmp_path, sentences, message):
    with pytest.raises(AnnotationError, match=message):
        read_msrvtt_train(*write_msrvtt(tmp_path, sentences=sentences))


def test_official_msrvtt_files(video_text):
    test = read_msrvtt_test(video_text / 'MSRVTT_JSFUSION_test.csv')
    assert len(test) == 1000
    assert test['video9770.mp4'] == ['a person is connecting something to system']
    split = video_text / 'MSRVTT_train.9k.csv'
    with split.open() as file:
        names = [row['video_id'] for row in csv.DictReader(file)]
    assert len(names) == 9000 and not {f'{name}.mp4' for name in names} & set(test)
    with pytest.raises(AnnotationError, match=r"needs \['sentence'\]"):
        read_msrvtt_test(split)


def test_official_didemo_files(video_text):
    test = read_didemo(video_text / 'didemo_test.json.gz')
    assert len(test) == 1037
    assert len(read_didemo(video_text / 'didemo_val.json.gz')) == 1094
    with gzip.open(video_text / 'didemo_test.json.gz', 'rt') as file:
        moments = json.load(file)
    name = moments[0]['video']
    parts = [m['description'].strip() for m in moments if m['video'] == name]
    assert test[name] == [' '.join(parts)] and len(parts) > 1


def test_didemo_keeps_the_order_of_the_file(tmp_path):
    path = tmp_path / 'test_data.json'
    moments = [('b.avi', 'one '), ('a.mov', 'x'), ('b.avi', 'two.')]
    path.write_text(json.dumps([dict(video=v, description=d) for v, d in moments]))
    assert list(read_didemo(path).items()) == [
        ('b.avi', ['one two.']),
        ('a.mov', ['x']),
    ]


@pytest.mark.parametrize(
    'content, message',
    [
        ('{}', 'no list of moments'),
        ('[]', 'no list of moments'),
        ('[{}]', "no 'video'"),
        ('no', 'is not a JSON document'),
    ],
)
def test_didemo_of_another_form(tmp_path, content, message):
    path = tmp_path / 'test_data.json'
    path.write_text(content)
    with pytest.raises(AnnotationError, match=message):
        read_didemo(path)


def damaged(content):
    content = bytearray(gzip.compress(content, mtime=0))
    content[20] ^= 255
    return bytes(content)


@pytest.mark.parametrize(
    'content',
    [gzip.compress(b'[]' * 100, mtime=0)[:-9], b'[]', damaged(b'[1, 2]' * 100), b''],
)
def test_damaged_gzip(tmp_path, content):
    path = tmp_path / 'test_data.json.gz'
    path.write_bytes(content)
    with pytest.raises(
        AnnotationError, match=f'{path} is not a (complete gzip|JSON document)'
    ):
        read_didemo(path)


@pytest.mark.parametrize(
    'content, message',
    [
        (b'video_id,sentence\r\n', 'has no row'),
        (
            b'video_id,sentence\r\nvideo1,x\r\nvideo2',
            "no sentence: {'video_id': 'video2",
        ),
        (b'video_id,sentence\r\n,', 'a row has no video_id and no sentence'),
        (b'', r'has the columns \[\]'),
        ('video_id,sentence\nvideo1,fünf'.encode('latin1'), 'is not a text in UTF-8'),
    ],
)
def test_msrvtt_test_of_another_form(tmp_path, content, message):
    path = tmp_path / 'test.csv'
    path.write_bytes(content)
    with pytest.raises(AnnotationError, match=message):
        read_msrvtt_test(path)


def test_byte_order_mark(tmp_path):
    # As Excel saves it.
    path = tmp_path / 'test.csv'
    path.write_text('\ufeffvideo_id,sentence\nvideo1,"fünf, ""x"""', 'utf-8')
    assert read_msrvtt_test(path) == {'video1.mp4': ['fünf, "x"']}


def test_captions_survive_the_file(tmp_path):
    captions = {'a.mp4': ['fünf', 'six'], 'b.mp4': ['x']}
    write_captions(captions, tmp_path / 'new' / 'a.json')
    assert read_captions(tmp_path / 'new' / 'a.json') == captions


@pytest.mark.parametrize('content', ['[]', '{}', '{"a": []}', '{"a": "text"}'])
def test_captions_of_another_form(tmp_path, content):
    path = tmp_path / 'a.json'
    path.write_text(content)
    with pytest.raises(AnnotationError, match='must map names of video files'):
        read_captions(path)
    with pytest.raises(FileNotFoundError, match='no file of annotations'):
        read_captions(tmp_path / 'b.json')


def test_names_of_other_formats(tmp_path):
    for name in ('x.mp4', 'y.avi', 'y.mov', 'z.v.mp4', 'u.v.mp4', 'notes.txt'):
        (tmp_path / name).touch()
    names = ['x.mov', 'y.avi', 'y.wmv', 'z.v.3gp', 'u.v.', 'w.mp4']
    matched, missing = match_files({name: [name] for name in names}, tmp_path)
    assert matched == {
        'x.mp4': ['x.mov'],
        'y.avi': ['y.avi'],
        'z.v.mp4': ['z.v.3gp'],
        'u.v.mp4': ['u.v.'],
    }
    # Two files could be y.wmv.
    assert missing == ['y.wmv', 'w.mp4']


@pytest.mark.parametrize(
    ('names', 'found'),
    [(['a.avi', 'a.mov'], []), (['a.avi', 'a.mp4'], ['a.mp4']), (['a.'], ['a.'])],
)
def test_no_caption_takes_the_place_of_another_videos(tmp_path, names, found):
    (tmp_path / 'a.mp4').touch()
    for order in (names, names[::-1]):
        matched, missing = match_files({name: [name] for name in order}, tmp_path)
        assert [texts for texts in matched.values()] == [[name] for name in found]
        assert missing == [name for name in order if name not in found]


def test_a_converter_does_not_replace_its_source(tmp_path, run_converter):
    rows = [{'video': 'a.avi', 'description': 'first', 'times': [[0, 0]]}]
    (tmp_path / 'test.json').write_text(json.dumps(rows))
    with pytest.raises(SystemExit, match='is the file that the captions come from'):
        run_converter('didemo', '--test', tmp_path / 'test.json', '--out', tmp_path)
    assert json.loads((tmp_path / 'test.json').read_text()) == rows


def test_msrvtt_converter(tmp_path, video_text, run_converter):
    split, captions = write_msrvtt(tmp_path)
    test = video_text / 'MSRVTT_JSFUSION_test.csv'
    videos = tmp_path / 'videos'
    videos.mkdir()
    (videos / 'video1.mp4').write_bytes(b'no video')
    (videos / 'video9771.mp4').write_bytes(b'no video')
    arguments = ['--train', split, '--captions', captions, '--test', test]
    printed = run_converter('msrvtt', *arguments, '--videos', videos, '--out', tmp_path)
    assert '999 videos have no file: video9770.mp4' in printed
    assert list(read_captions(tmp_path / 'train_9k.json')) == ['video1.mp4']
    assert read_captions(tmp_path / 'test_1k_A.json') == {
        'video9771.mp4': ['a little girl does gymnastics']
    }


def test_didemo_converter(tmp_path, video_text, run_converter):
    source = video_text / 'didemo_test.json.gz'
    printed = run_converter('didemo', '--test', source, '--out', tmp_path)
    assert '1037 videos, 1037 captions' in printed
    assert len(read_captions(tmp_path / 'test.json')) == 1037
    with pytest.raises(SystemExit, match='error: There is no file of annotations at'):
        run_converter('didemo', '--val', tmp_path / 'x', '--out', tmp_path)


def test_converter_leaves_out_what_does_not_decode(tmp_path, clips, run_converter):
    pytest.importorskip('av')
    videos = tmp_path / 'videos'
    videos.mkdir()
    for name in (CORRUPT, ROTATED):
        (videos / name).symlink_to(clips / name)
    moments = tmp_path / 'test_data.json'
    entries = [dict(video=v, description='x') for v in (CORRUPT, f'{ROTATED[:-4]}.avi')]
    moments.write_text(json.dumps(entries))
    printed = run_converter(
        'didemo', '--test', moments, '--videos', videos, '--check', '--out', tmp_path
    )
    assert f'{CORRUPT} cannot be decoded' in printed
    assert '1 videos do not decode' in printed
    assert list(read_captions(tmp_path / 'test.json')) == [ROTATED]


# --------------------------------------------------------------------- decoding


@pytest.mark.parametrize(
    'total, num_frames, expected',
    [
        (8, 4, [1, 3, 5, 7]),
        (300, 3, [50, 150, 250]),
        (2, 4, [0, 0, 1, 1]),
        (1, 2, [0] * 2),
    ],
)
def test_middles_of_segments(total, num_frames, expected):
    assert segment_indices(total, num_frames).tolist() == expected


def test_places_within_segments_are_drawn():
    np.random.seed(0)
    drawn = np.stack([segment_indices(100, 10, jitter=True) for _ in range(200)])
    assert (drawn // 10 == np.arange(10)).all()
    assert all(len(set(column)) == 10 for column in drawn.T)


def test_every_clip_decodes(clips, decoder):
    for clip in json.loads((clips / 'clips.json').read_text()):
        if clip['name'] == CORRUPT:
            continue
        frames = decode_video(clips / clip['name'], 3, decoder=decoder)
        assert len(frames) == 3
        for frame in frames:
            assert frame.shape == (clip['height'], clip['width'], 3)
            assert frame.dtype == np.uint8
        if clip['frames_decoded'] > 10:
            assert abs(frames[0].astype(int) - frames[2]).mean() > 1


@pytest.mark.parametrize(
    'name', [ROTATED, 'decord_flipping_a_pancake.mkv', 'mmaction2_test.avi']
)
def test_decoders_agree(clips, name):
    for package in PACKAGES.values():
        pytest.importorskip(package)
    ours, theirs = (
        np.stack(decode_video(clips / name, 12, decoder=decoder)).astype(int)
        for decoder in ('pyav', 'decord')
    )
    assert ours.shape == theirs.shape
    # The frames next to these differ by more in all three; versions of FFmpeg differ by
    # 0.6 in turning the rotated one.
    assert abs(ours - theirs).mean() < 0.7


def test_corrupt_clip(clips, decoder):
    with pytest.raises(CorruptVideoError, match=f'{CORRUPT} cannot be decoded: .+'):
        decode_video(clips / CORRUPT, 12, decoder=decoder)


@pytest.mark.parametrize('content', [b'', b'no video at all'])
def test_file_that_is_no_video(tmp_path, decoder, content):
    (tmp_path / 'a.mp4').write_bytes(content)
    with pytest.raises(CorruptVideoError, match='a.mp4 cannot be decoded'):
        decode_video(tmp_path / 'a.mp4', 2, decoder=decoder)
    with pytest.raises(FileNotFoundError, match='no video at .*b.mp4'):
        decode_video(tmp_path / 'b.mp4', 2, decoder=decoder)


def test_sound_without_pictures(tmp_path):
    av = pytest.importorskip('av')
    with av.open(str(tmp_path / 'a.wav'), 'w') as container:
        stream = container.add_stream('pcm_s16le', rate=8000)
        sound = np.zeros((1, 800), np.int16)
        frame = av.AudioFrame.from_ndarray(sound, format='s16', layout='mono')
        frame.rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(CorruptVideoError, match='has no frames'):
        decode_video(tmp_path / 'a.wav', 2)


@pytest.mark.parametrize('suffix', ['mp4', 'avi', 'mkv'])
def test_title_that_is_no_utf8(tmp_path, suffix, decoder):
    av = pytest.importorskip('av')
    path = tmp_path / f'a.{suffix}'
    with av.open(str(path), 'w') as container:
        container.metadata['title'] = 'ABCDEFGH'
        stream = container.add_stream('mpeg4', rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuv420p'
        grey = np.full((48, 64, 3), 128, np.uint8)
        frame = av.VideoFrame.from_ndarray(grey, format='rgb24')
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    content = path.read_bytes()
    assert b'ABCDEFGH' in content
    path.write_bytes(content.replace(b'ABCDEFGH', 'Größe äöü'.encode('latin1')[:8]))
    (frame,) = decode_video(path, 1, decoder=decoder)
    assert abs(frame.astype(int) - 128).max() < 5


def test_missing_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'av', None)
    (tmp_path / 'a.mp4').touch()
    with pytest.raises(ImportError, match=r'mmtransmamba\[video\]'):
        decode_video(tmp_path / 'a.mp4', 2)


def test_finding_corrupt_videos(clips):
    pytest.importorskip('av')
    paths = [clips / CORRUPT, clips / ROTATED]
    assert list(find_corrupt(paths, num_frames=8)) == [clips / CORRUPT]


# ---------------------------------------------------------------------- dataset


def pipeline(num_frames=4, side=32, **options):
    return [
        dict(type='mmtransmamba.DecodeVideo', num_frames=num_frames, **options),
        dict(type='mmaction.Resize', scale=(-1, side)),
        dict(type='mmaction.CenterCrop', crop_size=side),
        dict(type='mmaction.FormatShape', input_format='NCTHW', collapse=True),
    ]


NAMES = (ROTATED, CORRUPT, 'msrvtt_video7500.mp4')


def build(folder, clips, names=NAMES, captions=('a clip', 'a video'), **options):
    ann_file = folder / 'captions.json'
    write_captions({name: list(captions) for name in names}, ann_file)
    settings = dict(
        ann_file=ann_file,
        tokenizer=TOKENIZER,
        data_prefix=dict(video=str(clips)),
        max_corrupt=0.4,
        pipeline=pipeline(),
    )
    return VideoText(**(settings | options))


def mmaction_pipeline(decoder, num_frames=4):
    return [
        dict(type=f'mmaction.{decoder}Init'),
        dict(type='mmaction.UniformSample', clip_len=num_frames, test_mode=True),
        dict(type=f'mmaction.{decoder}Decode'),
        *pipeline()[1:],
    ]


@pytest.fixture
def needs_mmaction():
    pytest.importorskip('av')
    pytest.importorskip('mmaction')


@pytest.mark.parametrize(
    'method, package', [('Decord', 'decord'), ('PyAV', 'av'), ('OpenCV', 'cv2')]
)
def test_whole_pipelines_of_mmaction(
    tmp_path, clips, monkeypatch, method, package, needs_mmaction
):
    pytest.importorskip(package)
    folder = tmp_path / 'videos'
    folder.mkdir()
    # OpenCV shows some of what the others refuse.
    (folder / 'a.mp4').write_bytes(b'no video')
    for name in (NAMES[2], *([] if method == 'OpenCV' else [CORRUPT])):
        (folder / name).symlink_to(clips / name)
    names = ['a.mp4', *sorted(p.name for p in folder.iterdir() if p.name != 'a.mp4')]
    data = build(
        tmp_path,
        folder,
        names=names,
        pipeline=mmaction_pipeline(method),
        max_corrupt=0.7,
        test_mode=True,
    )
    logged = []
    monkeypatch.setattr(dataset, 'print_log', lambda *args: logged.append(args[0]))
    sample = data[0]
    assert sample['video_id'] == NAMES[2] and data.num_corrupt == len(names) - 1
    for name, message in zip(names[:-1], logged, strict=True):
        assert f'{name} cannot be decoded: ' in message
    own = read_video(Compose(pipeline()), folder / NAMES[2]).int()
    assert sample['video'].shape == own.shape
    # Frames chosen by another rule, of the same slow video.
    assert (sample['video'].int() - own).abs().float().mean() < 30


def test_other_errors_of_a_pipeline_are_not_the_files(clips, needs_mmaction):
    without = [step for step in mmaction_pipeline('PyAV') if 'Uniform' not in str(step)]
    with pytest.raises(KeyError, match='frame_inds'):
        read_video(Compose(without), clips / NAMES[2])

    def fail(results):
        raise ValueError('of the crop')

    with pytest.raises(ValueError, match='of the crop') as caught:
        read_video(Compose([*pipeline()[:1], fail]), clips / NAMES[2])
    assert not isinstance(caught.value, CorruptVideoError)
    with pytest.raises(FileNotFoundError, match='x.mp4'):
        read_video(Compose(mmaction_pipeline('PyAV')), clips / 'x.mp4')


@pytest.mark.parametrize(
    'steps, message',
    [
        (pipeline()[:-1], 'imgs of the shape a list; accepted: .3, T, H, W'),
        (
            [*pipeline()[:-1], dict(type='mmaction.FormatShape', input_format='NCHW')],
            r'imgs of the shape \(4, 3, 32, 32\)',
        ),
        ([*pipeline(), dict(type='mmaction.PackActionInputs')], 'leaves no imgs'),
    ],
)
def test_pipelines_that_leave_something_else(clips, steps, message, needs_mmaction):
    with pytest.raises(ValueError, match=message):
        read_video(Compose(steps), clips / NAMES[2])


def test_mmaction_transforms_follow(clips, needs_mmaction):
    transforms = Compose(pipeline(num_frames=5, side=48))
    given = dict(filename=str(clips / ROTATED), modality='RGB')
    imgs = transforms(given)['imgs']
    assert imgs.shape == (3, 5, 48, 48) and imgs.dtype == np.uint8
    frame = decode_video(clips / ROTATED, 5)[2]
    middle = frame[124:444].mean((0, 1))  # 320 x 568 upright
    assert imgs[:, 2].mean((1, 2)) == pytest.approx(middle, abs=2)


def test_samples(tmp_path, clips, needs_mmaction):
    pairs = build(tmp_path, clips)
    assert len(pairs) == 6
    sample = pairs[5]
    assert sample['video'].shape == (3, 4, 32, 32)
    assert sample['video'].dtype == torch.uint8
    assert (sample['video_id'], sample['caption_id']) == (NAMES[2], 5)
    assert sample['input_ids'].tolist() == [4, 1, 3, 5]
    videos = build(tmp_path, clips, test_mode=True)
    assert len(videos) == 3
    assert videos[2]['captions']['input_ids'].tolist() == [[4, 1, 2, 5], [4, 1, 3, 5]]
    with pytest.raises(IndexError, match='sample 3 of 3'):
        videos[3]


@pytest.mark.parametrize('test_mode', [False, True])
def test_corrupt_video_is_skipped_counted_and_reported(
    tmp_path, clips, monkeypatch, test_mode, needs_mmaction
):
    logged = []
    monkeypatch.setattr(dataset, 'print_log', lambda *args: logged.append(args))
    data = build(tmp_path, clips, test_mode=test_mode)
    assert data.num_corrupt == 0
    seen = [data[i]['video_id'] for i in range(len(data))]
    repeats = 1 if test_mode else 2
    assert seen == [NAMES[0]] * repeats + [NAMES[2]] * 2 * repeats
    assert data.num_corrupt == 1
    ((message, _, _),) = logged
    assert CORRUPT in message and '1 of 3 videos are corrupt so far: skipped' in message


@pytest.mark.parametrize('method', ['fork', 'spawn'])
def test_workers_tell_what_they_met(tmp_path, clips, method, needs_mmaction):
    data = build(tmp_path, clips, test_mode=True)
    loader = DataLoader(
        data,
        batch_size=3,
        num_workers=1,
        collate_fn=collate_video_text,
        multiprocessing_context=method,
    )
    (batch,) = loader
    assert batch['video_id'] == [NAMES[0], NAMES[2], NAMES[2]]
    # The one that stands for the corrupt video brings no captions of its own.
    assert [len(each['input_ids']) for each in batch['captions']] == [2, 0, 2]
    assert data.num_corrupt == 1


@pytest.mark.parametrize('batch_size', [1, 3])
def test_metric_is_that_of_the_other_videos(
    tmp_path, clips, batch_size, needs_mmaction
):
    torch.manual_seed(0)
    model = MODELS.build(TEACHER).eval()
    results = []
    for names in (NAMES, [NAMES[0], NAMES[2]]):
        data = build(tmp_path, clips, names=names, test_mode=True)
        metric = METRICS.build(dict(type='mmtransmamba.TextVideoRetrievalMetric'))
        for batch in DataLoader(data, batch_size, collate_fn=collate_video_text):
            metric.process(batch, model.val_step(batch))
        results.append(metric.evaluate(len(data)))
    assert results[0] == results[1]


def test_too_many_corrupt_videos(tmp_path, clips, needs_mmaction):
    data = build(tmp_path, clips, max_corrupt=0.3)
    message = r'1 of 3 videos are corrupt .* at most 30\.00% \(max_corrupt\)'
    with pytest.raises(ValueError, match=message):
        data[2]


def test_only_corrupt_videos(tmp_path, clips, needs_mmaction):
    data = build(tmp_path, clips, names=[CORRUPT], max_corrupt=0.99)
    with pytest.raises(ValueError, match='1 of 1 videos are corrupt'):
        data[0]


def test_missing_videos(tmp_path, clips):
    with pytest.raises(FileNotFoundError, match='2 of the 3 videos .* x.mp4, y.mp4'):
        build(tmp_path, clips, names=['x.mp4', NAMES[0], 'y.mp4'])


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(max_corrupt=1.0), 'max_corrupt must be'),
        (dict(pipeline=pipeline(num_frames=0)), 'num_frames=0 must be positive'),
        (dict(pipeline=pipeline(decoder='cv2')), "one of .*'decord'.*, got 'cv2'"),
    ],
)
def test_bad_arguments(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        build(tmp_path, tmp_path, names=['captions.json'], **options)


# -------------------------------------------------------------------- tokenizer


@pytest.fixture
def clip_vocabulary(tmp_path):
    """The files of a CLIP tokenizer of a few words."""
    characters = [chr(c) for c in range(ord('a'), ord('z') + 1)]
    merges = ['c a', 'ca t</w>', 'd o', 'do g</w>']
    words = characters + [f'{c}</w>' for c in characters]
    words += [merge.replace(' ', '') for merge in merges]
    words += ['<|startoftext|>', '<|endoftext|>']
    ids = {word: i for i, word in enumerate(words)}
    (tmp_path / 'vocab.json').write_text(json.dumps(ids))
    (tmp_path / 'merges.txt').write_text('\n'.join(['#version: 0.2', *merges]))
    return tmp_path, ids


def test_clip_tokenizer(clip_vocabulary):
    folder, ids = clip_vocabulary
    tokenizer = CLIPTextTokenizer(str(folder), max_length=4)
    tokens = tokenizer(['a Cat', 'dog', 'a dog a cat'])
    names = {i: word for word, i in ids.items()}
    words = [[names[i] for i in row] for row in tokens['input_ids'].tolist()]
    begin, end = '<|startoftext|>', '<|endoftext|>'
    assert words[0] == [begin, 'a</w>', 'cat</w>', end]
    assert words[1][:3] == [begin, 'dog</w>', end]
    assert words[2] == [begin, 'a</w>', 'dog</w>', end]  # cut
    assert tokens['attention_mask'].tolist() == [[1] * 4, [1, 1, 1, 0], [1] * 4]


class TestNoClipTokenizer:
    """Folders of which transformers would make a tokenizer without words."""

    @pytest.mark.parametrize('missing', ['vocab.json', 'merges.txt'])
    def test_missing_files(self, clip_vocabulary, missing):
        folder, _ = clip_vocabulary
        (folder / missing).unlink()
        with pytest.raises(
            FileNotFoundError, match='name=.* not a folder .*vocab.json and'
        ):
            CLIPTextTokenizer(folder)

    def test_no_folder(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="name='.*nowhere' is not a folder"):
            CLIPTextTokenizer(tmp_path / 'nowhere')

    def test_files_of_something_else(self, tmp_path):
        (tmp_path / 'tokenizer.json').write_text('{}')
        with pytest.raises(ValueError, match='are not a tokenizer of CLIP'):
            CLIPTextTokenizer(tmp_path)

    def test_no_room_for_words(self, clip_vocabulary):
        with pytest.raises(ValueError, match='max_length=2 must be 3 at least'):
            CLIPTextTokenizer(clip_vocabulary[0], max_length=2)
