"""The code in the documentation runs, and what it points to exists."""

import os
import re
from pathlib import Path

import pytest
import transformers
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch_release import exports

from mmtransmamba.compat import release
from mmtransmamba.registry import MODELS

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / 'docs').glob('*.md'))
READMES = sorted(
    path
    for root in ('configs', 'projects')
    for path in (ROOT / root).rglob('README.md')
)
FENCE = re.compile(r'^```(\w*)[^\n]*\n(.*?)^```$', re.MULTILINE | re.DOTALL)
FILE = re.compile(r'# file: (\S+)\n')
INCLUDE = re.compile(
    r'^```\{literalinclude\} (\S+)\n(?::pyobject: (\S+)\n)?', re.MULTILINE
)


def blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding='utf-8')
    return [code for kind, code in FENCE.findall(text) if kind == language]


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Path:
    """An empty folder that looks like the root of the source tree."""
    for name in ('configs', 'projects', 'tools'):
        os.symlink(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train_one_step(path: Path) -> None:
    cfg = Config.fromfile(path)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg.model | dict(data_preprocessor=cfg.data_preprocessor))
        model.init_weights()
        optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
        batch = next(iter(Runner.build_dataloader(cfg.train_dataloader)))
        losses = model.train_step(batch, optim_wrapper)
    assert losses['loss'].isfinite()


@pytest.mark.parametrize(
    'page', [p for p in PAGES if blocks(p, 'python')], ids=lambda p: p.stem
)
def test_code_runs(page, workspace):
    """The blocks of a page run in order, in one namespace.

    A block that begins with ``# file: NAME`` is written to that file.
    """
    if page.stem == 'export' and exports.args[0]:
        pytest.skip(exports.kwargs['reason'])
    if page.stem == 'serving' and release(transformers.__version__) < (5, 23):
        pytest.skip('Granite is computed differently before transformers 5.23')
    namespace = {'__name__': page.stem}
    with DefaultScope.overwrite_default_scope('mmengine'):
        for code in blocks(page, 'python'):
            file = FILE.match(code)
            if file:
                (workspace / file[1]).write_text(code)
            else:
                exec(compile(code, str(page), 'exec'), namespace)


def test_own_teacher_trains(workspace):
    page = ROOT / 'docs' / 'transfer_your_own_teacher.md'
    save_teacher, config = blocks(page, 'python')[:2]
    exec(compile(save_teacher, str(page), 'exec'), {})
    path = workspace / 'my_transfer.py'
    path.write_text(config)
    train_one_step(path)


@pytest.mark.parametrize(
    'page', PAGES + READMES, ids=lambda p: f'{p.parent.name}/{p.stem}'
)
def test_what_a_page_names_exists(page):
    text = page.read_text(encoding='utf-8')
    folders = 'configs|docs|projects|tests|tools'
    for name in re.findall(rf'\b((?:{folders})/[\w./-]+\.\w+)', text):
        assert (ROOT / name).exists() or (page.parent / name).exists(), name
    for target in re.findall(r'\]\(([^)#\s]+)', text):
        if '://' not in target:
            assert (page.parent / target).exists(), target
    for target, name in INCLUDE.findall(text):
        source = (page.parent / target).read_text()
        defined = re.findall(r'^(?:class|def) (\w+)', source, re.MULTILINE)
        assert not name or name in defined
