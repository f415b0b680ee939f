"""Fixtures and settings that every test shares."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

# Set before torch is imported: the tests use small tensors, for which many
# threads only wait for each other. Processes started by tests inherit it. Of
# pytest-xdist's workers, of which there is one for each core, each has one.
os.environ.setdefault(
    'OMP_NUM_THREADS', '1' if 'PYTEST_XDIST_WORKER' in os.environ else '2'
)
# Waiting threads sleep: spinning, they would take the core from other processes.
os.environ.setdefault('OMP_WAIT_POLICY', 'passive')

import pytest
from mmengine.registry import DefaultScope
from mmengine.runner import loops

import mmtransmamba  # noqa: F401, I001  (it bridges the imports that follow)

REPO_DIR = Path(__file__).resolve().parent.parent


def pytest_collection_finish() -> None:
    """What is imported by now stays: mmengine's datasets, which collect garbage when
    they are made, need not look through it each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope='session')
def repo_dir() -> Path:
    """The root of the source tree."""
    return REPO_DIR


@pytest.fixture(scope='session')
def shared_dir() -> Path:
    """The folder of shared test data, beside the source tree."""
    path = REPO_DIR.parent / 'shared'
    if not path.is_dir():
        pytest.skip('no "shared" data folder beside the source tree')
    return path


@pytest.fixture(autouse=True, scope='session')
def epochs_without_pause() -> Iterator[None]:
    """Training by iterations pauses for two seconds whenever the data begin anew."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loops, 'time', SimpleNamespace(sleep=lambda seconds: None))
        yield


@pytest.fixture(autouse=True)
def default_scope() -> Iterator[None]:
    """The scope that a Runner in one test sets does not reach the next test."""
    before = dict(DefaultScope._instance_dict)
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(before)
