"""No way of giving a checkpoint to the tools runs what it names."""

import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmtransmamba.utils import safe_load


class Shell:
    def __reduce__(self):
        return os.system, ('touch marker',)


class Letters:
    """A list of two letters each is one of pairs, which a mapping takes."""

    def __reduce__(self):
        return subprocess.call, (['sh', 'ev'],)


@pytest.fixture(scope='module')
def content(tiny_config, tmp_path_factory):
    """Files that a run has saved."""
    cfg = Config.fromfile(tiny_config)
    cfg.work_dir = str(tmp_path_factory.mktemp('trained'))
    Runner.from_cfg(cfg).train()
    return torch.load(f'{cfg.work_dir}/epoch_1.pth', weights_only=False)


@pytest.fixture(params=[(Shell, True), (Letters, False)], ids=['zip', 'old format'])
def evil(request, tmp_path, monkeypatch, content):
    """A complete checkpoint with a payload; the test fails if it was run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(safe_load.TRUST_VARIABLE, raising=False)
    (tmp_path / 'ev').write_text('touch marker')
    payload, zipped = request.param
    torch.save(
        dict(content, x=payload()),
        tmp_path / 'evil.pth',
        _use_new_zipfile_serialization=zipped,
    )
    yield tmp_path / 'evil.pth'
    assert not (tmp_path / 'marker').exists()


@pytest.fixture
def tool(repo_dir, tiny_config, monkeypatch):
    def load(name, *args):
        spec = importlib.util.spec_from_file_location(
            name, repo_dir / f'tools/{name}.py'
        )
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        arguments = [name, str(tiny_config), *map(str, args), '--work-dir', 'run']
        monkeypatch.setattr(sys, 'argv', arguments)
        return module

    return load


ROUTES = {
    'load_from': ['--cfg-options', 'load_from=evil.pth'],
    'resume from a file': ['--resume', 'evil.pth'],
    'resume': ['--resume'],
    'init_cfg': [
        '--cfg-options',
        'model.init_cfg.type=Pretrained',
        'model.init_cfg.checkpoint=evil.pth',
    ],
    'pretrained': ['--cfg-options', 'model.pretrained=evil.pth'],
}


@pytest.mark.parametrize('route', ROUTES)
def test_training_refuses_it(tool, evil, route):
    if route == 'resume':
        evil.parent.joinpath('run').mkdir()
        # Files of the old format are not looked for; a pointer names this one.
        if not zipfile.is_zipfile(evil):
            pytest.skip('old formats are resumed from by name alone')
        shutil.copy(evil, 'run/epoch_1.pth')
    train = tool('train', *ROUTES[route])
    cfg = train.prepare_config(train.parse_args())
    with pytest.raises(safe_load.UnsafeFileError, match=r'names (posix|subprocess)\.'):
        Runner.from_cfg(cfg).train()


def test_testing_refuses_it(tool, evil):
    test = tool('test', evil)
    with pytest.raises(SystemExit, match=r'error: .*evil\.pth" names (posix|subproc)'):
        test.main()


@pytest.mark.parametrize('zipped', [True, False])
def test_honest_checkpoints_resume(tool, content, tmp_path, monkeypatch, zipped):
    monkeypatch.chdir(tmp_path)
    torch.save(content, 'file.pth', _use_new_zipfile_serialization=zipped)
    options = ['--cfg-options', 'train_cfg.max_epochs=2', 'experiment_name=honest']
    train = tool('train', '--resume', 'file.pth', *options)
    runner = Runner.from_cfg(train.prepare_config(train.parse_args()))
    runner.train()
    assert runner.epoch == 2 and 'loss' in ''.join(runner.message_hub.log_scalars)
