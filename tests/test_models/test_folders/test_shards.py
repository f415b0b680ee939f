"""Weights in one file or in shards, as safetensors or pickled."""

import json

import pytest
import torch
from safetensors.torch import save_file

from mmtransmamba.models.checkpoint import CheckpointError
from mmtransmamba.models.folders.sources import open_folder

STATE = {
    # All names of a shard may have one prefix, which is not that of a wrapper.
    'model.a': torch.arange(6.0).reshape(2, 3),
    'model.b': torch.arange(3.0),
    'model.c': torch.tensor(2.5),
    'head': torch.ones(2, 2, dtype=torch.float16),
}
SHARDS = (['model.a', 'model.c'], ['head', 'model.b'])
KINDS = ('model.safetensors', 'pytorch_model.bin')


def save(state, path):
    if path.suffix == '.bin':
        torch.save(state, path)
    else:
        save_file(state, path)


def write_shards(folder, kind):
    """Two shards and their index, whose ``weight_map`` is returned."""
    stem, ending = kind.rsplit('.', 1)
    weight_map = {}
    for i, names in enumerate(SHARDS, 1):
        file = f'{stem}-{i:05}-of-00002.{ending}'
        save({name: STATE[name] for name in names}, folder / file)
        weight_map |= dict.fromkeys(names, file)
    write_index(folder, kind, weight_map)
    return weight_map


def write_index(folder, kind, weight_map):
    content = dict(metadata={}, weight_map=weight_map)
    (folder / f'{kind}.index.json').write_text(json.dumps(content), 'utf-8')


def check(source):
    assert set(source) == set(STATE)
    for name, tensor in STATE.items():
        assert torch.equal(source[name], tensor)
        assert source[name].dtype == tensor.dtype
        assert source.shape(name) == tensor.shape
        assert source.is_real(name)


@pytest.mark.parametrize('kind', KINDS)
def test_one_file_is_read(tmp_path, kind):
    save(STATE, tmp_path / kind)
    check(open_folder(tmp_path))


@pytest.mark.parametrize('kind', KINDS)
def test_shards_are_read(tmp_path, kind):
    write_shards(tmp_path, kind)
    check(open_folder(tmp_path))
    (tmp_path / f'{kind}.index.json').unlink()
    check(open_folder(tmp_path))


@pytest.mark.parametrize('kind', KINDS)
def test_a_missing_shard_is_named(tmp_path, kind):
    weight_map = write_shards(tmp_path, kind)
    (tmp_path / weight_map['head']).unlink()
    with pytest.raises(CheckpointError, match=f'not there: {weight_map["head"]}'):
        open_folder(tmp_path)


@pytest.mark.parametrize('read', ['__getitem__', 'shape', 'is_real'])
def test_a_tensor_that_is_not_in_its_shard_is_named(tmp_path, read):
    weight_map = write_shards(tmp_path, KINDS[0])
    wrong = weight_map['model.a']
    write_index(tmp_path, KINDS[0], weight_map | {'head': wrong})
    source = open_folder(tmp_path)
    with pytest.raises(CheckpointError, match=f'{wrong} does not contain head'):
        getattr(source, read)('head')


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('content', [[], {'weight_map': {'head': 3}}, {}])
def test_a_file_that_is_not_an_index_is_refused(tmp_path, kind, content):
    write_shards(tmp_path, kind)
    index = tmp_path / f'{kind}.index.json'
    index.write_text(json.dumps(content), 'utf-8')
    with pytest.raises(CheckpointError, match=f'{index} is not an index of shards'):
        open_folder(tmp_path)
