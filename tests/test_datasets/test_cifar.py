import logging

import cv2
import numpy as np
import pytest
from mmpretrain.datasets.categories import CIFAR10_CATEGORIES

from mmtransmamba.datasets import CIFAR10Shards, image_shards


def encode(value):
    """A JPEG of one colour whose red channel is ``value``."""
    image = np.full((32, 32, 3), (10, 100, value), np.uint8)
    return cv2.imencode('.jpg', image)[1].tobytes()


def write_shard(path, files, labels=None, **arrays):
    if labels is None:
        labels = np.arange(len(files), dtype=np.uint8) % 10
    shard = {
        'jpeg': np.frombuffer(b''.join(files), np.uint8),
        'offsets': np.cumsum([0, *map(len, files)]),
        'labels': labels,
        'names': np.array(CIFAR10_CATEGORIES),
        **arrays,
    }
    np.savez(path, **{key: value for key, value in shard.items() if value is not None})


def test_both_training_shards_in_order(tmp_path):
    write_shard(tmp_path / 'train_0.npz', [encode(50), encode(60)])
    write_shard(tmp_path / 'train_1.npz', [encode(200)])
    dataset = CIFAR10Shards(tmp_path, 'train')
    assert len(dataset) == 3
    assert dataset.get_gt_labels().tolist() == [0, 1, 0]
    assert dataset.CLASSES == tuple(CIFAR10_CATEGORIES)
    image = dataset[2]['img']
    assert image.shape == (32, 32, 3)
    assert image.dtype == np.uint8
    # RGB, up to the loss of the JPEG encoding.
    assert np.abs(image[0, 0].astype(int) - (200, 100, 10)).max() <= 3
    assert dataset.num_corrupt == 0


@pytest.mark.parametrize('damage', ['truncated', 'empty', 'no image'])
def test_corrupt_images_are_left_out(tmp_path, damage):
    files = [encode(value) for value in range(100)]
    replacement = {
        'truncated': files[7][: len(files[7]) // 2],
        'empty': b'',
        'no image': b'text' + b'\xff\xd9',
    }
    files[7] = replacement[damage]
    write_shard(tmp_path / 'test.npz', files)
    dataset = CIFAR10Shards(tmp_path, 'test', max_corrupt=0.01, test_mode=True)
    assert len(dataset) == 99
    assert dataset.num_corrupt == 1
    assert dataset.get_gt_labels()[6:8].tolist() == [6, 8]
    assert dataset[7]['img'].shape == (32, 32, 3)


def test_corrupt_images_are_reported(tmp_path, monkeypatch):
    logged = []
    monkeypatch.setattr(image_shards, 'print_log', lambda *args: logged.append(args))
    write_shard(tmp_path / 'test.npz', [encode(1), b''])
    CIFAR10Shards(tmp_path, 'test', max_corrupt=0.5)
    ((message, logger, level),) = logged
    assert '1 of 2 images' in message
    assert 'test.npz[1]: skipped' in message
    assert (logger, level) == ('current', logging.WARNING)


def test_too_many_corrupt_images(tmp_path):
    files = [encode(value) for value in range(98)] + [b'', b'']
    write_shard(tmp_path / 'test.npz', files)
    message = r'2 of 100 images .* at most 1\.00% \(max_corrupt\)'
    with pytest.raises(ValueError, match=message):
        CIFAR10Shards(tmp_path, 'test')


def test_missing_shard(tmp_path):
    write_shard(tmp_path / 'train_0.npz', [encode(1)])
    with pytest.raises(FileNotFoundError, match=r'no file ".*train_1\.npz"'):
        CIFAR10Shards(tmp_path, 'train')


@pytest.mark.parametrize(
    ('arrays', 'message'),
    [
        ({'offsets': None}, 'is not a shard with the arrays'),
        ({'offsets': np.array(3)}, 'is not a shard with the arrays'),
        ({'labels': np.array([10])}, 'has the label 10; accepted are 0 to 9'),
        ({'labels': np.array([-1])}, 'has the label -1; accepted'),
        ({'labels': np.array([0.5])}, r'has the label 0\.5; accepted'),
        ({'labels': np.zeros(2, np.uint8)}, '2 labels, 2 offsets'),
        ({'names': np.array(['cat', 'dog'])}, r"the classes .* are \['cat', 'dog'\]"),
    ],
)
def test_malformed_shard(tmp_path, arrays, message):
    write_shard(tmp_path / 'test.npz', [encode(1)], **arrays)
    with pytest.raises(ValueError, match=message):
        CIFAR10Shards(tmp_path, 'test')


def test_file_that_is_no_archive(tmp_path):
    (tmp_path / 'test.npz').write_bytes(b'not a zip file')
    with pytest.raises(ValueError, match='is not a shard with the arrays'):
        CIFAR10Shards(tmp_path, 'test')


def test_a_single_array_is_no_archive(tmp_path):
    with (tmp_path / 'test.npz').open('wb') as file:
        np.save(file, np.zeros(3))
    with pytest.raises(ValueError, match=r'test\.npz" is not a shard with the arrays'):
        CIFAR10Shards(tmp_path, 'test')


def test_a_damaged_compressed_archive(tmp_path):
    path = tmp_path / 'test.npz'
    np.savez_compressed(path, jpeg=np.arange(5000) % 251)
    content = bytearray(path.read_bytes())
    content[200:260] = bytes(60)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r'test\.npz" is not a shard with the arrays'):
        CIFAR10Shards(tmp_path, 'test')


@pytest.mark.parametrize(
    ('argument', 'value'), [('split', 'val'), ('max_corrupt', 1.0)]
)
def test_bad_arguments(tmp_path, argument, value):
    with pytest.raises(ValueError, match=f'{argument} must be'):
        CIFAR10Shards(tmp_path, **{argument: value})


def test_real_test_split(shared_dir):
    dataset = CIFAR10Shards(shared_dir / 'data' / 'cifar10', 'test')
    assert np.bincount(dataset.get_gt_labels()).tolist() == [1000] * 10
    assert dataset[9999]['img'].shape == (32, 32, 3)
    assert dataset.num_corrupt == 0
