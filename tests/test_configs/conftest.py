from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from config_families import FAMILY_OF, Family
from config_runs import load
from mmengine.config import Config
from mmengine.registry import DefaultScope


@pytest.fixture(autouse=True)
def scope(request) -> Iterator[None]:
    """Enter the ``default_scope`` of the tested config, as the Runner does."""
    name = getattr(request.node, 'callspec', None) and request.node.callspec.params
    name = (name or {}).get('name', '')
    scope = load(name).default_scope if name in FAMILY_OF else 'mmpretrain'
    with DefaultScope.overwrite_default_scope(scope):
        yield


@pytest.fixture(scope='session')
def folder_of(tmp_path_factory) -> Callable[[Family], Path]:
    """The folder of a family's tiny models and data, which are written once."""
    written = {}

    def of(family: Family) -> Path:
        if family not in written:
            written[family] = tmp_path_factory.mktemp(type(family).__name__)
            family.write(written[family])
        return written[family]

    return of


@pytest.fixture
def shrunk(folder_of) -> Callable[[str], Config]:
    """A config by its name, with the sizes of its family's tests."""
    return lambda name: FAMILY_OF[name].shrink(load(name), folder_of(FAMILY_OF[name]))
