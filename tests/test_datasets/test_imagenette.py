"""Imagenette's shards, and which of ImageNet's classes its ten are."""

import json

import numpy as np
import pytest
from mmengine.registry import DefaultScope
from tiny_imagenette import encode, write_shard

from mmtransmamba.datasets import (
    IMAGENETTE_CLASSES,
    IMAGENETTE_INDICES,
    ImagenetteShards,
)
from mmtransmamba.models.teachers.class_order import order_of_classes


def image(value):
    return encode(np.full((96, 96, 3), (10, 100, value), np.uint8))


def test_each_split_is_one_shard(tmp_path):
    write_shard(tmp_path / 'train.npz', [image(50), image(200)])
    write_shard(tmp_path / 'val.npz', [image(90)])
    train = ImagenetteShards(tmp_path)
    assert train.get_gt_labels().tolist() == [0, 1]
    assert train.CLASSES == IMAGENETTE_CLASSES
    assert train[1]['img'].shape == (96, 96, 3)
    assert abs(int(train[1]['img'][0, 0, 0]) - 200) <= 3  # red first
    assert len(ImagenetteShards(tmp_path, 'val')) == 1


@pytest.mark.parametrize(
    ('split', 'arrays', 'message'),
    [
        ('test', {}, r"ImagenetteShards: split must be one of \['train', 'val'\]"),
        ('val', {'names': np.array(['cat'])}, r"ImagenetteShards: the classes .*'cat'"),
        ('val', {'offsets': None}, 'ImagenetteShards: .* is not a shard'),
    ],
)
def test_messages_name_this_reader(tmp_path, split, arrays, message):
    write_shard(tmp_path / 'val.npz', [image(1)], **arrays)
    with pytest.raises(ValueError, match=message):
        ImagenetteShards(tmp_path, split)


def test_the_real_set_and_the_real_teachers_numbers(shared_dir):
    data = shared_dir / 'data'
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        val = ImagenetteShards(data / 'imagenette96', 'val')
    assert len(val) == 3925 and val.num_corrupt == 0
    names = json.loads((data / 'deit_tiny' / 'config.json').read_text())['id2label']
    names = [names[str(i)] for i in range(len(names))]
    assert order_of_classes(names, IMAGENETTE_CLASSES) == list(IMAGENETTE_INDICES)
