import pickle

import numpy as np
import pytest
from mmengine.dataset import BaseDataset, ConcatDataset, RepeatDataset
from mmengine.registry import DefaultScope

from mmtransmamba.datasets import Digits, Subset
from mmtransmamba.datasets.subset import stratified_indices
from mmtransmamba.registry import DATASETS

LABELS = [0] * 40 + [1] * 20 + [2] * 3


class Labelled(BaseDataset):
    """A dataset that has ``gt_label`` but not mmpretrain's ``get_cat_ids``."""

    def __init__(self, labels, **kwargs):
        self.labels = labels
        super().__init__(**kwargs)

    def load_data_list(self):
        return [{'gt_label': label, 'row': i} for i, label in enumerate(self.labels)]


@pytest.mark.parametrize(
    ('proportion', 'counts'),
    [(1, [40, 20, 3]), (0.75, [30, 15, 2]), (0.5, [20, 10, 2]), (0.01, [1, 1, 1])],
)
def test_every_class_keeps_its_proportion(proportion, counts):
    chosen = stratified_indices(LABELS, proportion)
    assert np.bincount(np.array(LABELS)[chosen]).tolist() == counts
    assert chosen == sorted(set(chosen))


def test_choice_depends_on_the_seed_only():
    assert stratified_indices(LABELS, 0.5, 3) == stratified_indices(LABELS, 0.5, 3)
    assert stratified_indices(LABELS, 0.5, 3) != stratified_indices(LABELS, 0.5, 4)


def test_smaller_subsets_lie_in_larger_ones():
    chosen = [set(stratified_indices(LABELS, p)) for p in (0.1, 0.25, 0.5, 0.75, 1.0)]
    for smaller, larger in zip(chosen, chosen[1:], strict=False):
        assert smaller < larger


@pytest.mark.parametrize('proportion', [0, -0.5, 1.01, 75, '0.5', None, True])
def test_bad_proportion(proportion):
    with pytest.raises(ValueError, match=r'proportion must be a number in \(0, 1\]'):
        Subset(Labelled(LABELS), proportion=proportion)


def test_samples_are_those_of_the_wrapped_dataset():
    whole = Labelled(LABELS)
    subset = Subset(whole, proportion=0.5, seed=1)
    assert len(subset) == 32
    for idx in (0, 20, 31):
        assert subset[idx]['row'] == subset.indices[idx]
        assert subset.get_data_info(idx) == whole.get_data_info(subset.indices[idx])
        assert subset.get_cat_ids(idx) == [LABELS[subset.indices[idx]]]


def test_built_from_a_config_around_mmpretrain_datasets(tmp_path):
    import cv2

    for name in ('cat', 'dog'):
        (tmp_path / name).mkdir()
        for i in range(4):
            file = tmp_path / name / f'{i}.png'
            assert cv2.imwrite(str(file), np.full((4, 4, 3), 50, np.uint8))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        subset = DATASETS.build(
            dict(
                type='mmtransmamba.Subset',
                proportion=0.5,
                dataset=dict(
                    type='CustomDataset',
                    data_prefix=str(tmp_path),
                    pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')],
                ),
            )
        )
    assert subset.metainfo['classes'] == ('cat', 'dog')
    assert [subset.get_cat_ids(i) for i in range(len(subset))] == [[0], [0], [1], [1]]
    assert subset[3]['inputs'].shape == (3, 4, 4)


def write_cifar(folder, name, labels, key):
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    data = rng.integers(0, 256, (len(labels), 3072), dtype=np.uint8)
    with open(folder / name, 'wb') as file:
        pickle.dump({'data': data, key: labels}, file)


def test_around_cifar_of_mmpretrain(tmp_path, monkeypatch):
    from mmpretrain.datasets import CIFAR100

    # The class checks the md5 sums of the real files before it reads them.
    monkeypatch.setattr(CIFAR100, '_check_integrity', lambda self: True)
    labels = [i % 100 for i in range(400)]
    write_cifar(tmp_path / 'cifar-100-python', 'train', labels, 'fine_labels')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        subset = DATASETS.build(
            dict(
                type='mmtransmamba.Subset',
                proportion=0.75,
                dataset=dict(type='CIFAR100', data_root=str(tmp_path), split='train'),
            )
        )
    chosen = [subset.get_cat_ids(i)[0] for i in range(len(subset))]
    assert np.bincount(chosen).tolist() == [3] * 100


def test_around_other_wrappers():
    parts = ConcatDataset([Labelled([0, 0, 1, 1]), Labelled([1, 1, 0, 0])])
    subset = Subset(parts, proportion=0.5)
    assert sorted(subset.get_cat_ids(i)[0] for i in range(4)) == [0, 0, 1, 1]
    repeated = RepeatDataset(Labelled([0, 1]), times=3)
    assert len(Subset(repeated, proportion=1.0)) == 6


def test_lazy_init_loads_nothing():
    whole = Labelled(LABELS, lazy_init=True)
    subset = Subset(whole, proportion=0.5, lazy_init=True)
    assert not whole._fully_initialized
    assert len(subset) == 32


def test_labels_that_cannot_be_stratified():
    with pytest.raises(TypeError, match='Labelled has neither get_cat_ids'):
        Subset(Labelled([None]), proportion=0.5)
    with pytest.raises(ValueError, match='sample 0 of Labelled has 2 classes'):
        Subset(Labelled([[0, 1]]), proportion=0.5)


def test_subset_of_the_digits():
    subset = Subset(Digits('train'), proportion=0.1)
    classes = np.bincount([subset.get_cat_ids(i)[0] for i in range(len(subset))])
    assert len(subset) == 120
    assert classes.tolist() == [12] * 10
