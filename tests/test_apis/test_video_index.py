"""Indexing a folder of videos and finding them by text."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from safetensors.torch import save_file
from tiny_retrievers import STUDENT, TEACHER

from mmtransmamba.apis import Retriever, VideoIndex, index_folder
from mmtransmamba.apis.video_index import OLD_FORMAT
from mmtransmamba.models.checkpoint import CheckpointError
from mmtransmamba.registry import MODELS
from mmtransmamba.utils.config_data import as_data

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'retrieve.py'
WORDS = ['a', 'dark', 'bright', 'clip']
PIPELINE = [
    dict(type='mmtransmamba.DecodeVideo', num_frames=4),
    dict(type='mmaction.Resize', scale=(-1, 32)),
    dict(type='mmaction.CenterCrop', crop_size=32),
    dict(type='mmaction.FormatShape', input_format='NCTHW', collapse=True),
]
TOKENIZER = dict(type='mmtransmamba.WordTokenizer', words=WORDS)


def make_config(**fields):
    settings = dict(model=STUDENT, tokenizer=TOKENIZER, test_pipeline=PIPELINE)
    return Config(settings | fields)


def save_weights(folder, model=STUDENT):
    torch.manual_seed(0)
    built = MODELS.build(model)
    built.init_weights()
    torch.save(dict(state_dict=built.state_dict()), folder / 'weights.pth')
    return folder / 'weights.pth', built.eval()


def write_video(path, seed):
    av = pytest.importorskip('av')
    pytest.importorskip('mmaction')
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('mpeg4', rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuv420p'
        for _ in range(6):
            coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
            pixels = np.ascontiguousarray(coarse.repeat(8, 0).repeat(8, 1))
            frame = av.VideoFrame.from_ndarray(pixels, format='rgb24')
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.fixture
def folder(tmp_path):
    """Three videos, one of them in a folder of its own, and what is none."""
    videos = tmp_path / 'videos'
    for seed, name in enumerate(('a.mp4', 'b.avi', 'deeper/c.mkv')):
        write_video(videos / name, seed)
    (videos / 'broken.mp4').write_bytes(b'no video')
    (videos / 'notes.txt').write_text('not indexed')
    return videos


NAMES = ['a.mp4', 'b.avi', 'deeper/c.mkv']


@pytest.mark.parametrize('num_workers', [0, 1])
def test_index_has_the_embeddings_of_the_model(tmp_path, folder, num_workers):
    checkpoint, model = save_weights(tmp_path)
    retriever = Retriever(make_config(), checkpoint)
    index, faults = index_folder(
        retriever, folder, batch_size=2, num_workers=num_workers
    )
    assert index.names == NAMES
    assert len(faults) == 1 and 'broken.mp4 cannot be decoded' in faults[0]
    videos = torch.stack([retriever.read_video(folder / name) for name in NAMES])
    assert videos.shape == (3, 3, 4, 32, 32) and videos.dtype == torch.uint8
    with torch.no_grad():
        expected = model(model.data_preprocessor(dict(video=videos))['inputs'])
        texts = model.encode_text(**retriever.tokenizer(['a dark clip']))
    torch.testing.assert_close(index.features, expected)
    torch.testing.assert_close(retriever.embed_texts(['a dark clip']), texts)


@pytest.mark.parametrize('texts', [[], 'a dark clip'])
def test_texts_must_be_a_list(tmp_path, texts):
    retriever = Retriever(make_config(), save_weights(tmp_path)[0])
    with pytest.raises(ValueError, match='Texts must be a list of one string'):
        retriever.embed_texts(texts)


def test_search():
    features = torch.nn.functional.normalize(torch.randn(50, 8), dim=-1)
    index = VideoIndex([str(i) for i in range(50)], features, {})
    found = index.search(features[17], 5)
    assert found[0] == ('17', pytest.approx(1.0))
    cosines = (features @ features[17]).sort(descending=True).values[:5]
    assert [value for _, value in found] == pytest.approx(cosines.tolist())
    assert len(index.search(features[0], 99)) == 50
    with pytest.raises(ValueError, match='embeddings of 8 channels, the query'):
        index.search(torch.zeros(9), 5)
    with pytest.raises(ValueError, match='must be 1 at least: 0'):
        index.search(features[0], 0)


def test_saved_index_is_the_same(tmp_path):
    index = VideoIndex(['ä.mp4', 'b"c.mp4'], torch.randn(2, 4), dict(config='x'))
    index.save(tmp_path / 'new' / 'a.safetensors')
    loaded = VideoIndex.load(tmp_path / 'new' / 'a.safetensors')
    assert loaded.names == index.names and loaded.info == index.info
    assert torch.equal(loaded.features, index.features)


def test_file_that_is_no_index(tmp_path):
    path = tmp_path / 'a.safetensors'
    with pytest.raises(FileNotFoundError, match='no index at'):
        VideoIndex.load(path)
    path.write_bytes(b'text')
    with pytest.raises(ValueError, match='is not an index of videos'):
        VideoIndex.load(path)
    save_file({'features': torch.zeros(2, 2)}, path)
    with pytest.raises(ValueError, match='is not an index of videos'):
        VideoIndex.load(path)
    VideoIndex(['one'], torch.zeros(2, 2), {}).save(path)
    with pytest.raises(ValueError, match=r'1 names for embeddings .* \[2, 2\]'):
        VideoIndex.load(path)


@pytest.mark.parametrize('value', [torch.nan, torch.inf])
def test_what_is_no_number_neither_finds_nor_is_found(tmp_path, value):
    features = torch.zeros(3, 4)
    features[1, 2] = value
    names = ['a', 'b', 'c']
    VideoIndex(names, features, {}).save(tmp_path / 'a.safetensors')
    with pytest.raises(ValueError, match='embeddings of 1 of 3 videos .* that of b'):
        VideoIndex.load(tmp_path / 'a.safetensors')
    with pytest.raises(ValueError, match='embedding of the query is NaN'):
        VideoIndex(names, torch.zeros(3, 4), {}).search(features[1], 1)


def test_a_model_that_computes_no_numbers_indexes_nothing(tmp_path, folder):
    retriever = Retriever(make_config(), save_weights(tmp_path)[0])
    retriever.model.video_projection.weight.data.fill_(torch.nan)
    with pytest.raises(ValueError, match='3 of 3 videos are NaN .* that of a.mp4'):
        index_folder(retriever, folder)


def test_student_of_a_distiller(tmp_path):
    checkpoint, model = save_weights(tmp_path)
    config = make_config(
        model=dict(
            type='mmtransmamba.MultiDirectionDistiller',
            student=STUDENT | dict(text_checkpoint='is/not/read.pth'),
            teacher=dict(
                type='mmtransmamba.CLIP4ClipTeacher',
                model=TEACHER,
                checkpoint='random',
            ),
        )
    )
    retriever = Retriever(config, checkpoint)
    tokens = retriever.tokenizer(['a bright clip'])
    with torch.no_grad():
        expected = model.encode_text(**tokens)
    assert torch.equal(retriever.embed_texts(['a bright clip']), expected)
    assert 'text_checkpoint' in config.model.student


def test_config_of_something_else(tmp_path):
    for part in ('model', 'tokenizer', 'test_pipeline'):
        config = make_config()
        config.pop(part)
        with pytest.raises(ValueError, match=f'has no {part}: it is none of text-vid'):
            Retriever(config, tmp_path / 'x.pth')
    with pytest.raises(FileNotFoundError, match='config file .* does not exist'):
        Retriever(tmp_path / 'x.py', tmp_path / 'x.pth')
    backbone = dict(type='mmtransmamba.PlainMamba', arch='T')
    with pytest.raises(ValueError, match='PlainMamba is not a model of text-video'):
        Retriever(make_config(model=backbone), tmp_path / 'x.pth')


def test_checkpoint_of_another_model(tmp_path):
    checkpoint, _ = save_weights(tmp_path, TEACHER)
    with pytest.raises(CheckpointError, match='does not fit VideoMambaRetriever'):
        Retriever(make_config(), checkpoint)


def test_folders_without_videos(tmp_path):
    retriever = Retriever(make_config(), save_weights(tmp_path)[0])
    with pytest.raises(FileNotFoundError, match='There is no folder'):
        index_folder(retriever, tmp_path / 'x')
    with pytest.raises(FileNotFoundError, match='There is no video in'):
        index_folder(retriever, tmp_path)
    pytest.importorskip('av')
    (tmp_path / 'a.mp4').write_bytes(b'no video')
    with pytest.raises(ValueError, match='None of the 1 videos in .* can be decoded'):
        index_folder(retriever, tmp_path)


# ------------------------------------------------------------------------- tool


@pytest.fixture
def run_tool(monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location('retrieve', TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', ['retrieve', *map(str, arguments)])
        tool.main()
        return capsys.readouterr()

    return run


def test_index_and_query(tmp_path, folder, run_tool, monkeypatch):
    checkpoint, _ = save_weights(tmp_path)
    config = tmp_path / 'config.py'
    make_config().dump(config)
    out = tmp_path / 'index.safetensors'
    told = run_tool(
        'index', config, checkpoint, folder, '--out', out, '--device', 'cpu'
    )
    assert 'skipped: ' in told.out and 'broken.mp4 cannot be decoded' in told.out
    assert '3 videos, 1 corrupt ones skipped' in told.out
    assert 'index' in told.err  # the bar of progress

    told = run_tool('query', out, 'a dark clip', '-k', '2', '--device', 'cpu')
    index = VideoIndex.load(out)
    retriever = Retriever(config, checkpoint)
    expected = index.search(retriever.embed_texts(['a dark clip'])[0], 2)
    lines = told.out.splitlines()
    assert lines == ['a dark clip'] + [f'  {c:6.3f}  {folder / n}' for n, c in expected]

    typed = iter(['a bright clip', '', 'a pink clip', 'dark'])
    monkeypatch.setattr('builtins.input', lambda _: next(typed, None))
    told = run_tool('query', out, '--device', 'cpu')
    assert told.out.count('\n') == 2 * (1 + 3)
    assert "lacks ['pink']" in told.err


def test_index_made_in_python(tmp_path, folder, run_tool, monkeypatch):
    checkpoint, _ = save_weights(tmp_path)
    config = tmp_path / 'config.py'
    make_config().dump(config)
    out = tmp_path / 'index.safetensors'
    monkeypatch.chdir(tmp_path)
    # Relative paths are those of the time of indexing.
    index, _ = index_folder(Retriever('config.py', 'weights.pth'), 'videos')
    weights = index.info.pop('weights')
    assert index.info == dict(folder=str(folder), checkpoint=str(checkpoint))
    index.info['weights'] = weights
    index.save(out)
    monkeypatch.chdir(tmp_path.parent)
    told = run_tool('query', out, 'a dark clip', '--device', 'cpu')
    assert str(folder / 'deeper' / 'c.mkv') in told.out

    index.settings = None
    index.save(out)
    with pytest.raises(SystemExit, match='does not hold the settings .* --config'):
        run_tool('query', out, 'a dark clip', '--device', 'cpu')
    told = run_tool('query', out, 'a dark clip', '--config', config, '--device', 'cpu')
    assert told.out.startswith('a dark clip')


def test_a_query_with_other_weights_is_refused(tmp_path, folder, run_tool):
    checkpoint, _ = save_weights(tmp_path)
    config, out = tmp_path / 'config.py', tmp_path / 'index.safetensors'
    make_config().dump(config)
    retriever = Retriever(config, checkpoint)
    index, _ = index_folder(retriever, folder)
    index.save(out)
    index.check_weights(Retriever(config, checkpoint))
    other = tmp_path / 'best.pth'
    state = torch.load(checkpoint, weights_only=True)
    inner = state.get('state_dict', state)
    name = next(name for name, x in inner.items() if x.is_floating_point())
    inner[name] = inner[name] + 1
    torch.save(state, other)
    with pytest.raises(SystemExit, match='best.pth are not those that the index was'):
        run_tool('query', out, 'a dark clip', '--checkpoint', other, '--device', 'cpu')
    checkpoint.write_bytes(other.read_bytes())
    with pytest.raises(SystemExit, match='are not those that the index was made with'):
        run_tool('query', out, 'a dark clip', '--device', 'cpu')


def write_index(path, settings, **info):
    torch.manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(2, 16), dim=-1)
    VideoIndex(['a.mp4', 'b.mp4'], features, info, settings).save(path)


def test_index_of_an_older_version_runs_no_config(tmp_path, run_tool, monkeypatch):
    checkpoint, _ = save_weights(tmp_path)
    config, out = tmp_path / 'config.py', tmp_path / 'index.safetensors'
    config.write_text(f'open({str(tmp_path / "marker")!r}, "w")')
    monkeypatch.setattr('mmtransmamba.apis.video_index.FORMAT', OLD_FORMAT)
    write_index(out, None, config=str(config), checkpoint=str(checkpoint))
    monkeypatch.undo()
    with pytest.raises(SystemExit, match=r'older version .*config\.py.*--config'):
        run_tool('query', out, 'a dark clip', '--device', 'cpu')
    assert not (tmp_path / 'marker').exists()


@pytest.mark.parametrize(
    'changes',
    [
        dict(model=dict(type='subprocess.call', args=['touch', 'marker'])),
        dict(tokenizer=dict(type='os.system', command='touch marker')),
        dict(model=STUDENT | dict(backbone=dict(type='evil.Model'))),
        dict(model=STUDENT | dict(_scope_='evil')),
        dict(model=STUDENT | dict(x=[dict(type='builtins.eval')])),
        dict(model=STUDENT | dict(init_cfg=dict(type='Pretrained', checkpoint='x'))),
        dict(model=dict(type=['subprocess.call'])),
        dict(model=dict(type='mmpretrain.ImageClassifier')),
    ],
)
def test_index_makes_nothing_but_parts_of_this_package(
    tmp_path, run_tool, monkeypatch, changes
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'evil').mkdir()
    (tmp_path / 'evil' / '__init__.py').write_text('open("marker", "w")')
    monkeypatch.syspath_prepend(tmp_path)
    checkpoint, _ = save_weights(tmp_path)
    settings = dict(model=STUDENT, tokenizer=TOKENIZER) | changes
    write_index(tmp_path / 'a.safetensors', settings, checkpoint=str(checkpoint))
    with pytest.raises(SystemExit, match='retrieve: error: The settings of the model'):
        run_tool('query', 'a.safetensors', 'a dark clip', '--device', 'cpu')
    assert not (tmp_path / 'marker').exists()


def test_model_with_other_parts_is_not_held_by_an_index(tmp_path):
    checkpoint, _ = save_weights(tmp_path)
    retriever = Retriever(make_config(), checkpoint)
    assert retriever.settings['model']['type'] == STUDENT['type']
    assert as_data(dict(model=dict(type='mmpretrain.ImageClassifier'))) is None
    assert as_data(dict(model=dict(a=torch.ones(1)))) is None
    known = dict(type='mmtransmamba.VideoMamba', scale=(1, 2), init_cfg=dict(a=1))
    assert as_data(known) == dict(type='mmtransmamba.VideoMamba', scale=[1, 2])


def test_bad_numbers_and_devices(tmp_path, folder, run_tool, capsys):
    checkpoint, _ = save_weights(tmp_path)
    with pytest.raises(SystemExit):
        run_tool('query', 'x', 'text', '-k', '0')
    assert (
        'argument -k: "0" must be a whole number, 1 at least' in capsys.readouterr().err
    )
    config = tmp_path / 'config.py'
    make_config().dump(config)
    with pytest.raises(
        SystemExit, match="^retrieve: error: device='tpu' cannot be used"
    ):
        run_tool('index', config, checkpoint, folder, '--device', 'tpu')


def test_errors_are_one_line(tmp_path, run_tool):
    with pytest.raises(SystemExit, match='^retrieve: error: There is no index at'):
        run_tool('query', tmp_path / 'x', 'text')
    with pytest.raises(SystemExit, match='^retrieve: error: the config file'):
        run_tool('index', tmp_path / 'x.py', tmp_path / 'x.pth', tmp_path)
