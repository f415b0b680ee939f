"""Metafiles list the configs, with the parameters that the models have."""

from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from config_families import FAMILY_OF
from config_runs import NAMES, ROOT, load, read_yaml

PATHS = [ROOT / path for path in read_yaml(ROOT / 'model-index.yml')['Import']]
MODELS = [model for path in PATHS for model in read_yaml(path)['Models']]
COUNTED = {
    model['Config'].removeprefix('configs/'): model['Metadata']['Parameters']
    for model in MODELS
    if 'Parameters' in model['Metadata']
}
# Without metafile: language models convert from any Transformer.
UNLISTED = ('language/*', 'quickstart/*', '*/ablations/*', '*/easy_vqa/*', '*/shapes_*')


def test_they_list_every_config_once():
    listed = [model['Config'].removeprefix('configs/') for model in MODELS]
    expected = [
        name
        for name in NAMES.values()
        if not any(fnmatchcase(name, pattern) for pattern in UNLISTED)
    ]
    assert sorted(listed) == sorted(expected)


def test_all_of_them_are_in_the_index():
    assert sorted(PATHS) == sorted((ROOT / 'configs').rglob('metafile.yml'))


@pytest.mark.parametrize('path', PATHS, ids=lambda path: path.parent.name)
def test_names_and_collections_exist(path):
    metafile = read_yaml(path)
    for collection in metafile['Collections']:
        assert (ROOT / collection['README']).is_file()
    collections = {each['Name'] for each in metafile['Collections']}
    for model in metafile['Models']:
        assert model['Name'] == Path(model['Config']).stem
        assert (ROOT / model['Config']).parent.is_relative_to(path.parent)
    assert {model['In Collection'] for model in metafile['Models']} == collections


@pytest.mark.parametrize('name', COUNTED)
def test_parameters_are_those_of_the_model(name):
    assert FAMILY_OF[name].count_parameters(load(name)) == COUNTED[name]
