"""Fixtures and settings that every test shares."""

import gc
import os
import random
import sys
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

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.runner import loops
from yapf.yapflib import yapf_api

import mmtransmamba  # noqa: F401, I001  (it bridges the imports that follow)
from mmtransmamba import registry

REPO_DIR = Path(__file__).resolve().parent.parent


def pytest_collection_finish() -> None:
    """What is imported by now stays: mmengine's datasets, which collect garbage when
    they are made, need not look through it each time."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Each test, with the fixtures made for it, draws the same numbers every time,
    whatever ran before it in its process."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


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


@pytest.fixture(scope='session')
def compilable() -> None:
    """Passes over a test where torch cannot compile transformers' own decoders."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = dict(hidden_size=8, intermediate_size=8, num_attention_heads=1)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=8, num_hidden_layers=1, **sizes))
    try:
        torch.compile(model, backend='eager')(torch.zeros(1, 4, dtype=torch.int64))
    except Exception as error:
        pytest.skip(
            f'torch {torch.__version__} does not compile the Llama of transformers: '
            f'{type(error).__name__}'
        )
    finally:
        torch.compiler.reset()


@pytest.fixture(autouse=True, scope='session')
def without_waiting_for_mmengine() -> Iterator[None]:
    """What a training of two steps spends most of its time with.

    Training by iterations pauses for two seconds whenever the data begin anew, and a
    Runner lays out its config, half a second's work, four times.
    """
    laid_out = {}

    def lay_out(text: str, **options):
        key = text, str(options)
        if key not in laid_out:
            laid_out[key] = format_code(text, **options)
        return laid_out[key]

    format_code = yapf_api.FormatCode
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loops, 'time', SimpleNamespace(sleep=lambda seconds: None))
        patch.setattr(yapf_api, 'FormatCode', lay_out)
        yield


@pytest.fixture(autouse=True)
def default_scope() -> Iterator[None]:
    """The scope that a Runner in one test sets does not reach the next test.

    A Runner in a fixture of a module does not either.
    """
    DefaultScope._instance_dict.clear()
    yield
    DefaultScope._instance_dict.clear()


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """Ranks that a tool sets for its own process do not reach the next test."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


REGISTRIES = [r for r in vars(registry).values() if isinstance(r, registry.Registry)]


@pytest.fixture(autouse=True)
def registries() -> Iterator[None]:
    """Classes that a test, or the code of a page, defines leave with it.

    Classes of imported modules stay: an import registers only once.
    """
    before = [set(known.module_dict) for known in REGISTRIES]
    yield
    for known, names in zip(REGISTRIES, before, strict=True):
        for name in known.module_dict.keys() - names:
            member = known.module_dict[name]
            imported = member.__module__ in sys.modules
            if '<locals>' in member.__qualname__ or not imported:
                del known.module_dict[name]
