"""Views of images with a teacher's recorded outputs."""

import copy
import json
import pickle
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from tiny_imagenette import build_teacher, record, write_imagenette, write_teacher

from mmtransmamba.datasets import RecordedViews, Subset
from mmtransmamba.datasets.recorded_views import make_view, resize_view
from mmtransmamba.transfer.alignment import resample_tokens
from mmtransmamba.utils.locks import alone_in


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp('views')
    write_imagenette(folder / 'data')
    write_teacher(folder / 'teacher')
    teacher = build_teacher(folder / 'teacher')
    found = record(folder / 'data', folder / 'views', teacher)
    return SimpleNamespace(
        data=folder / 'data', views=folder / 'views', teacher=teacher, record=found
    )


def test_what_is_recorded_is_what_the_teacher_says_of_that_view(made):
    source = record(made.data, made.views, made.teacher)  # finished: nothing to do
    assert source == made.record and source.done == source.images == 20
    dataset = RecordedViews(made.views)
    raw = dataset_of(made)
    for index in (0, 13):
        views = [make_view(raw[index]['img'], (0, index, v)) for v in range(2)]
        for _ in range(4):
            sample = dataset[index]
            (view,) = (
                v for v in views if np.array_equal(resize_view(v, 72), sample['img'])
            )
            shown = torch.from_numpy(resize_view(view, 32)).permute(2, 0, 1)[None]
            said = made.teacher(shown)
            told = sample['teacher_record']
            np.testing.assert_allclose(told['logits'], said.logits[0], atol=1e-5)
            np.testing.assert_allclose(told['feature'], said.feature[0], atol=1e-2)
            tokens = resample_tokens(said.layers[7].tokens, said.layers[7].grid, (6, 6))
            np.testing.assert_allclose(
                told['layer_7'].reshape(36, -1), tokens[0], atol=1e-2
            )


def dataset_of(made):
    from mmtransmamba.datasets import ImagenetteShards

    return ImagenetteShards(made.data, 'train')


def test_all_views_are_drawn_and_classes_can_be_chosen_from(made):
    dataset = RecordedViews(made.views, layers=[11])
    assert {dataset[3]['img'].tobytes() for _ in range(30)}.__len__() == 2
    assert set(dataset[3]['teacher_record']) == {'logits', 'feature', 'layer_11'}
    assert len(Subset(dataset, 0.5)) == 10
    assert len(dataset.metainfo['classes']) == 10


def test_copies_have_the_path_of_a_recording_not_its_content(made):
    dataset = RecordedViews(made.views)
    whole = sum(file.stat().st_size for file in made.views.iterdir())
    for copied in (
        pickle.loads(pickle.dumps(dataset)),
        copy.deepcopy(dataset),
        dataset.get_subset([2, 5]),
    ):
        assert len(pickle.dumps(copied)) < whole / 4
        shown = copied[1]['img']
        real = dataset[5 if len(copied) == 2 else 1]
        assert shown.shape == real['img'].shape
        assert isinstance(copied._images._array, np.memmap)


def test_an_interrupted_recording_goes_on(made, tmp_path):
    def stop(done, total):
        # After what is saved once for fifty images nothing may be lost.
        if done == 60:
            raise KeyboardInterrupt

    write_imagenette(tmp_path / 'data', 70)
    with pytest.raises(KeyboardInterrupt):
        record(tmp_path / 'data', tmp_path / 'views', made.teacher, on_image=stop)
    with pytest.raises(ValueError, match='has 50 of 70 images; let the recording'):
        RecordedViews(tmp_path / 'views')
    seen = []
    again = record(
        *(tmp_path / 'data', tmp_path / 'views', made.teacher),
        on_image=lambda done, total: seen.append(done),
    )
    assert seen == list(range(51, 71)) and again.done == 70
    whole = record(tmp_path / 'data', tmp_path / 'whole', made.teacher)
    assert whole.teacher_top1 == pytest.approx(again.teacher_top1)
    for name in ('labels', 'images', 'logits', 'feature', 'layer_3'):
        first, second = (
            np.load(tmp_path / folder / f'{name}.npy') for folder in ('views', 'whole')
        )
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize('change', [dict(views=3), dict(seed=1), dict(layers=(1,))])
def test_another_recording_is_not_mixed_in(made, change):
    with pytest.raises(ValueError, match='holds another recording'):
        record(made.data, made.views, made.teacher, **change)


def test_a_teacher_of_other_classes_is_refused(made, tmp_path):
    from mmtransmamba.models.teachers import TransformersTeacher

    teacher = TransformersTeacher(str(made.data.parent / 'teacher'))
    with pytest.raises(ValueError, match='the teacher knows 11 classes'):
        record(made.data, tmp_path / 'views', teacher)


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(views=0), 'views=0 must be at least 1'),
        (dict(size=0), 'size=0 must be at least 1'),
        (dict(layers=(3, 12)), r'layers names \[12\]; the teacher has 0 to 11'),
        (dict(layers=(-1,)), r'layers names \[-1\]; the teacher has 0 to 11'),
    ],
)
def test_what_cannot_be_recorded(change, message, made, tmp_path):
    with pytest.raises(ValueError, match=message):
        record(made.data, tmp_path / 'views', made.teacher, **change)
    assert not (tmp_path / 'views').exists()


def test_a_source_of_tuples_is_found_again(made, tmp_path):
    source = dict(sizes=(1, 2))
    first = record(made.data, tmp_path / 'views', made.teacher, source=source)
    assert record(made.data, tmp_path / 'views', made.teacher, source=source) == first


def test_folders_that_are_none_and_layers_that_are_missing(made, tmp_path):
    with pytest.raises(FileNotFoundError, match='holds no recorded views'):
        RecordedViews(tmp_path)
    (tmp_path / 'record.json').write_text(json.dumps(dict(a=1)))
    with pytest.raises(ValueError, match='describes no recorded views'):
        RecordedViews(tmp_path)
    with pytest.raises(ValueError, match=r'layers names \[5\], recorded .* \[3, 7, 11'):
        RecordedViews(made.views, layers=[5])


def test_two_processes_do_not_record_into_one_folder(made, tmp_path):
    folder = tmp_path / 'views'
    with (
        alone_in(folder, 'the other one'),
        pytest.raises(BlockingIOError, match='another process writes to'),
    ):
        record(made.data, folder, made.teacher)
    assert record(made.data, folder, made.teacher).done == 20


@pytest.mark.parametrize('name', ['labels', 'images', 'logits', 'feature', 'layer_7'])
def test_damaged_arrays_are_named(name, made, tmp_path):
    folder = tmp_path / 'views'
    shutil.copytree(made.views, folder)
    path = folder / f'{name}.npy'
    whole = np.load(path)
    for size in (0, 10, path.stat().st_size - 30):
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(ValueError, match=rf'{name}\.npy" is not a whole array'):
            RecordedViews(folder)
        np.save(path, whole)
    np.save(path, whole[:5])
    with pytest.raises(ValueError, match=rf'{name}\.npy" has the shape \(5,'):
        RecordedViews(folder)


@pytest.mark.parametrize('shape', [(24, 24, 3), (40, 9, 3), (1, 1, 3)])
def test_views_lie_within_the_image_and_repeat(shape):
    image = np.arange(np.prod(shape), dtype=np.uint32).reshape(shape)
    views = [make_view(image, (seed,)) for seed in range(50)]
    for seed, view in enumerate(views):
        assert np.array_equal(view, make_view(image, (seed,)))
        assert 0 < view.shape[0] <= shape[0] and 0 < view.shape[1] <= shape[1]
    if shape[1] > 1:
        steps = {np.sign(int(v[0, 1, 0]) - int(v[0, 0, 0])) for v in views}
        assert steps == {-1, 1}  # flipped and not


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield
