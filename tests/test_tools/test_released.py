"""The tools on checkpoints that mmengine did not write."""

import pytest
import torch
from mmengine.config import Config

from mmtransmamba.models import Vim, VMamba
from mmtransmamba.registry import MODELS


def tiny(kind, tiny_config, folder):
    """A config like the tools' tests' own with another backbone."""
    cfg = Config.fromfile(tiny_config)
    if kind == 'Vim':
        arch = Vim.ARCHS['tiny'] | dict(embed_dims=16, depth=1)
        width = 16
        extra = dict(img_size=8, patch_size=2, in_channels=1)
    else:
        arch = VMamba.ARCHS['vanilla_tiny']
        arch = arch | dict(depths=(1, 1, 1, 1), embed_dims=4)
        width = 32
        extra = dict(in_channels=1)
    cfg.model.backbone = dict(type=f'mmtransmamba.{kind}', arch=arch, **extra)
    cfg.model.neck = None if kind == 'Vim' else dict(type='GlobalAveragePooling')
    cfg.model.head = dict(type='LinearClsHead', num_classes=10, in_channels=width)
    path = folder / f'{kind}.py'
    cfg.dump(path)
    return cfg, path


@pytest.mark.parametrize('kind', ['Vim', 'VMamba'])
def test_official_container(kind, tiny_config, run_tool, tmp_path):
    cfg, path = tiny(kind, tiny_config, tmp_path)
    model = MODELS.build(Config(dict(m=cfg.model)).m | dict(_scope_='mmpretrain'))
    model.init_weights()
    official = {'Vim': 'head.', 'VMamba': 'classifier.head.'}[kind]
    state = {
        key.removeprefix('backbone.').replace('head.fc.', official): value
        for key, value in model.state_dict().items()
    }
    torch.save({'model': state, 'epoch': 300}, tmp_path / 'official.pth')
    done = run_tool('test.py', path, tmp_path / 'official.pth', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'missing keys' not in done.stdout + done.stderr
    assert 'Checkpoint:' in done.stdout

    state.popitem()
    torch.save({'model': state}, tmp_path / 'official.pth')
    options = ('--cfg-options', 'load_from=official.pth', 'train_cfg.max_epochs=1')
    done = run_tool('train.py', path, *options, cwd=tmp_path)
    assert done.returncode != 0
    assert 'does not fit ImageClassifier' in done.stderr
