import numpy as np
import pytest
from mmengine.registry import DefaultScope

from mmtransmamba.datasets import Digits
from mmtransmamba.registry import DATASETS


def test_splits_are_the_first_and_the_last_images():
    from sklearn.datasets import load_digits

    digits = load_digits()
    train, test = Digits('train'), Digits('test')
    assert (len(train), len(test)) == (1200, 597)
    labels = np.concatenate([train.get_gt_labels(), test.get_gt_labels()])
    assert np.array_equal(labels, digits.target)
    image = test[0]['img']
    assert image.dtype == np.uint8
    assert image.shape == (8, 8, 1)
    assert np.array_equal(np.rint(image[..., 0] / 255 * 16), digits.images[1200])
    assert image.max() == 255


def test_three_channels_are_equal():
    image = Digits('test', channels=3)[5]['img']
    assert image.shape == (8, 8, 3)
    assert np.array_equal(image[..., 0], image[..., 2])


def test_classes():
    dataset = Digits('test')
    assert dataset.CLASSES == tuple('0123456789')
    assert dataset.metainfo['classes'] == dataset.CLASSES
    assert dataset.get_cat_ids(0) == [dataset[0]['gt_label']]


@pytest.mark.parametrize(
    ('argument', 'value', 'message'),
    [
        ('split', 'val', r"split must be one of \['train', 'test'\], got 'val'"),
        ('channels', 2, 'channels must be 1 or 3, got 2'),
    ],
)
def test_bad_arguments(argument, value, message):
    with pytest.raises(ValueError, match=message):
        Digits(**{argument: value})


def test_works_with_the_pipeline_of_mmpretrain():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        dataset = DATASETS.build(
            dict(
                type='mmtransmamba.Digits',
                split='test',
                pipeline=[
                    dict(type='mmtransmamba.RandomAffine', degrees=10),
                    dict(type='PackInputs'),
                ],
            )
        )
    sample = dataset[3]
    assert sample['inputs'].shape == (1, 8, 8)
    assert sample['data_samples'].gt_label.tolist() == dataset.get_cat_ids(3)
